//! The site that an operator gives in place of the built-in pages: a directory with all that lies
//! in it, read once, at the start of the node.

use std::io;
use std::path::Path;

use crate::transport::pages::Assets;

/// Reads the files of a directory and of those in it. Links are passed over, so that nothing from
/// elsewhere is served and no circle is walked; so are names that are not UTF-8, which no request
/// could ask for.
///
/// # Errors
/// What cannot be read.
pub fn read(directory: &Path) -> io::Result<Assets> {
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
