//! The package for crates.io: it has what is built and what the README links to, and no tests,
//! benches, scripts or settings of this repository.

use std::process::Command;

const ALLOWED: &[&str] = &["src/", "examples/", "www/", "docs/"];

/// Files at the top, with those that Cargo adds.
const TOP: &[&str] = &[
    ".cargo_vcs_info.json",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
];

#[test]
fn package_has_the_source_and_no_tests_benches_or_scripts() {
    let listed = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(listed.status.success(), "{listed:?}");
    let list = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let files: Vec<&str> = list.lines().collect();
    for file in &files {
        let is_below = ALLOWED.iter().any(|directory| file.starts_with(directory));
        assert!(is_below || TOP.contains(file), "{file}");
    }
    for needed in [
        "src/main.rs",
        "www/index.html",
        "docs/openapi.yaml",
        "LICENSE-MIT",
    ] {
        assert!(files.contains(&needed), "there is no {needed}");
    }
}
