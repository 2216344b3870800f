//! What may stand in Cargo.lock: versions above those with known holes, one TLS library, nothing that was banned. `make audit`
//! checks more, and takes longer.

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
fn versions_with_known_holes_are_behind_us() {
    // The first version of each line that is whole; a line is what its requirement begins with.
    let floors = [
        ("bytes", [1, 11, 1]),
        ("idna", [1, 0, 0]),
        ("rand", [0, 10, 1]),
        ("rustls", [0, 23, 5]),
        ("rustls-webpki", [0, 103, 13]),
        ("slab", [0, 4, 11]),
        ("smallvec", [1, 6, 1]),
        ("time", [0, 3, 47]),
        ("tungstenite", [0, 20, 1]),
        ("aws-lc-sys", [0, 39, 0]),
    ];
    for (name, version) in packages() {
        // Only the simulation's and the fuzzing's dependencies have it, and give it no logger to call.
        let excused = name == "rand" && version[..2] == [0, 9];
        for (other, floor) in floors {
            let holds = name != other || version >= floor || excused;
            assert!(holds, "{name} {version:?} is below {floor:?}");
        }
    }
}

#[test]
fn what_is_banned_is_not_there() {
    let found = packages();
    for name in ["rsa", "openssl", "openssl-sys", "native-tls"] {
        assert!(found.iter().all(|(other, _)| *other != name), "{name}");
    }
}
