//! The pages of `--www`, which replace the built-in ones: a directory, read once with all its
//! files, when the node starts.

use std::io;
use std::path::Path;

use crate::transport::pages::Assets;

/// Reads the files of a directory and of its subdirectories. Links are skipped, so that nothing
/// outside is served and no cycle is followed; so are names that are not UTF-8, which no request
/// can name.
///
/// # Errors
/// If a file or directory cannot be read.
pub(super) fn read(directory: &Path) -> io::Result<Assets> {
    let mut files = Vec::new();
    let mut directories = vec![(String::new(), directory.to_owned())];
    while let Some((prefix, directory)) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let name = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push((format!("{name}/"), entry.path()));
            } else if kind.is_file() {
                files.push((name, std::fs::read(entry.path())?));
            }
        }
    }
    Ok(Assets::from_files(files))
}
