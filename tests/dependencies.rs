//! The versions in Cargo.lock: none with a known vulnerability, one TLS library, and no banned
//! package. `make audit` checks more, and takes longer.

const LOCK: &str = include_str!("../Cargo.lock");

/// Every package with its version, as three numbers.
fn packages() -> Vec<(&'static str, [u64; 3])> {
    let value = |entry: &'static str, key: &str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(key))?;
        line.strip_prefix(" = \"")?.strip_suffix('"')
    };
    let entries = LOCK.split("[[package]]").skip(1);
    let packages: Vec<_> = entries
        .filter_map(|entry| Some((value(entry, "name")?, numbers(value(entry, "version")?))))
        .collect();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    packages
}

fn numbers(version: &str) -> [u64; 3] {
    let (plain, _) = version.split_once(['-', '+']).unwrap_or((version, ""));
    let mut parts = plain.split('.').map(|part| part.parse().expect("a number"));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

#[test]
fn versions_with_known_vulnerabilities_are_absent() {
    // The first version with the fix, for each release line (the first two numbers) that has one.
    let patched = [
        ("aws-lc-sys", [0, 39, 0]),
        ("bytes", [1, 11, 1]),
        ("idna", [1, 0, 0]),
        ("lru", [0, 18, 2]),
        ("rand", [0, 9, 3]),
        ("rand", [0, 10, 1]),
        ("rustls-webpki", [0, 103, 13]),
        ("slab", [0, 4, 11]),
        ("time", [0, 3, 47]),
        ("tungstenite", [0, 20, 1]),
    ];
    for (name, version) in packages() {
        let of_this = patched.iter().filter(|(other, _)| *other == name);
        let fixes: Vec<[u64; 3]> = of_this.map(|(_, minimum)| *minimum).collect();
        let line = |version: &[u64; 3]| [version[0], version[1]];
        let is_patched = fixes.is_empty()
            || fixes
                .iter()
                .any(|minimum| line(minimum) == line(&version) && version >= *minimum)
            || fixes.iter().all(|minimum| line(&version) > line(minimum));
        assert!(
            is_patched,
            "{name} {version:?} is vulnerable; fixed in {fixes:?}"
        );
    }
}

#[test]
fn banned_packages_are_absent() {
    let found = packages();
    for name in ["rsa", "openssl", "openssl-sys", "native-tls"] {
        assert!(found.iter().all(|(other, _)| *other != name), "{name}");
    }
}
