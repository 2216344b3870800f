//! `docs/limits.md` against the code: every option that is a limit is listed with its default,
//! every metric exists, and the table of close codes matches the code. The table of
//! `docs/protocol.md` has the same codes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use switchboard::config::Config;
use switchboard::metrics::Metrics;
use switchboard::protocol::disconnect::Disconnect;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("it is there")
}

/// The cells of all rows with so many columns, without the lines that begin tables.
fn rows(text: &str, columns: usize) -> Vec<Vec<&str>> {
    let rows = text.lines().filter_map(|line| {
        let line = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let is_ruler = cells.iter().all(|cell| cell.contains("--"));
        (cells.len() == columns && !is_ruler && !["what", "code"].contains(&cells[0]))
            .then_some(cells)
    });
    rows.collect()
}

/// Every option with its value in open mode, as `--check-config` shows it.
fn options() -> BTreeMap<String, String> {
    let shown = Config::default().to_toml();
    let lines = shown.lines().map(|line| line.trim_start_matches("# "));
    let lines = lines.filter_map(|line| line.split_once(" = "));
    let plain = |(name, value): (&str, &str)| (name.to_owned(), value.trim_matches('"').to_owned());
    lines.map(plain).collect()
}

/// Options that limit no resource of a client.
fn is_no_limit(name: &str) -> bool {
    let words = [
        "listen",
        "open",
        "token-key",
        "token-audience",
        "token-issuer",
        "token-in-query",
        "room",
        "node",
        "allow-eviction",
        "allow-origin",
        "trusted-proxy",
        "redis",
        "prefix",
        "topic-linger",
        "heartbeat",
        "history",
        "presence-events",
        "webhook-room",
        "log-level",
    ];
    words.contains(&name)
}

#[test]
fn every_limit_is_documented_with_its_option_and_its_default() {
    let text = read("docs/limits.md");
    let options = options();
    let mut documented = BTreeSet::new();
    for row in rows(&text, 6) {
        let [_, option, default, ..] = row[..] else {
            unreachable!()
        };
        let bare = option
            .strip_prefix('`')
            .and_then(|rest| rest.strip_suffix('`'));
        let Some(name) = bare.filter(|name| !name.contains('`')) else {
            // One that follows from an option has its row besides.
            let mut named = option.split('`').skip(1).step_by(2);
            assert!(option == "fixed" || named.all(|name| options.contains_key(name)));
            continue;
        };
        let value = options
            .get(name)
            .unwrap_or_else(|| panic!("no option {name}"));
        let open = default
            .rsplit_once("in open mode ")
            .map_or(default, |(_, open)| open);
        assert_eq!(open, value, "the default of {name}");
        assert!(
            documented.insert(name.to_owned()),
            "{name} stands there twice"
        );
    }
    let limits: BTreeSet<_> = options
        .into_keys()
        .filter(|name| !is_no_limit(name))
        .collect();
    let missing: Vec<_> = limits.difference(&documented).collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");
}

#[test]
fn every_documented_metric_exists() {
    let text = read("docs/limits.md");
    let metrics = Metrics::default();
    let figures: BTreeSet<String> = metrics
        .figures()
        .map(|figure| match figure.label {
            Some((name, value)) => format!("{}{{{name}=\"{value}\"}}", figure.name),
            None => figure.name.to_owned(),
        })
        .collect();
    let mut seen = 0;
    for row in rows(&text, 6) {
        for figure in row[5].split('`').skip(1).step_by(2) {
            assert!(figures.contains(figure), "no figure {figure}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn tables_of_close_codes_match_the_code() {
    let text = read("docs/limits.md");
    let documented: Vec<Vec<String>> = rows(&text, 3)
        .into_iter()
        .map(|row| row.into_iter().map(str::to_owned).collect())
        .collect();
    let meant: Vec<Vec<String>> = Disconnect::ALL
        .iter()
        .map(|why| {
            let comes_back = if why.invites_return() { "yes" } else { "no" };
            vec![
                why.code().to_string(),
                why.reason().to_owned(),
                comes_back.to_owned(),
            ]
        })
        .collect();
    assert_eq!(documented, meant);

    let protocol = read("docs/protocol.md");
    let table = protocol.split("| code | why |").nth(1).expect("the table");
    let table = table.split("\n\n").next().expect("its rows");
    let first = |row: &str| row.split('|').nth(1).unwrap_or("").to_owned();
    let cells: String = table.lines().map(first).collect::<Vec<_>>().join(",");
    let numbers = cells.split(|c: char| !c.is_ascii_digit());
    let codes: Vec<u16> = numbers.filter_map(|number| number.parse().ok()).collect();
    let all: Vec<u16> = Disconnect::ALL.iter().map(|why| why.code()).collect();
    assert_eq!(codes, all);
}
