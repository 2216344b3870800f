//! The TOML file and the flags. They are accepted or refused with a reason; the effective
//! configuration is printed as a file with the same meaning.

use std::ffi::OsString;

use switchboard::config::Invocation;

/// An even first byte: the rest is a file; an odd one: each line of it is an argument.
pub fn any_configuration(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    // Host names would be resolved and files opened, so such inputs are skipped. An escape could
    // spell them.
    if ["listen", "www", "redis-ca", "redis_ca", "token", "\\"]
        .iter()
        .any(|part| text.contains(part))
    {
        return;
    }
    let read = if kind % 2 == 0 {
        of_file(text)
    } else {
        parse(text.lines(), "")
    };
    match read {
        Ok(Invocation::Serve(config)) => {
            let shown = config.to_toml();
            // The printed configuration has no passwords, so it may differ.
            if config.redis.is_empty() {
                let again = of_file(&shown);
                assert_eq!(again, Ok(Invocation::Serve(config)), "{shown}");
            }
        }
        Ok(Invocation::CheckConfig(config)) => assert!(!config.to_toml().is_empty()),
        Ok(Invocation::Text(text)) => assert!(!text.is_empty()),
        Ok(other) => panic!("another command was given: {other:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn of_file(text: &str) -> Result<Invocation, String> {
    parse(["--config", "file"].into_iter(), text)
}

fn parse<'a>(words: impl Iterator<Item = &'a str>, file: &str) -> Result<Invocation, String> {
    let words = ["switchboard", "serve"].into_iter().chain(words);
    Invocation::parse(words.map(OsString::from), [], |_| Ok(file.to_owned()))
        .map_err(|error| error.to_string())
}
