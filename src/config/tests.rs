use std::ffi::OsString;
use std::io;

use super::*;
use crate::config::redis_url::RedisUrlError;

/// Parses flags behind `switchboard serve`, variables and the text of `node.toml`.
fn read(flags: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Invocation, ConfigError> {
    let args = ["switchboard", "serve"]
        .iter()
        .chain(flags)
        .map(OsString::from);
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    Invocation::parse(args, variables, |path| match path.to_str() {
        Some("node.toml") => Ok(file.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fn serve(flags: &[&str]) -> Config {
    match read(flags, &[], "") {
        Ok(Invocation::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn refused(flags: &[&str], variables: &[(&str, &str)], file: &str) -> String {
    read(flags, variables, file)
        .expect_err("refused")
        .to_string()
}

#[test]
fn empty_configuration_yields_the_defaults() {
    let mut config = Config::default();
    assert_eq!(
        config.node, "",
        "it depends on the port, which a program may set"
    );
    config.complete();
    assert_eq!(serve(&[]), config);
    assert_eq!(config.listen, "127.0.0.1:9090".parse().unwrap());
    assert!(config.node.ends_with("-9090") && config.redis.is_empty() && config.www.is_none());
    assert_eq!(
        (config.max_message, config.outbox_bytes),
        (64 << 10, 1 << 20)
    );
    assert_eq!(
        (config.heartbeat, config.history_age),
        (25 * SECOND, 5 * MINUTE)
    );
    assert_eq!(config.log_level, LevelFilter::Info);
    assert!(config.contradictions().is_empty());
}

#[test]
fn flags_win_over_variables_over_the_file_over_the_defaults() {
    let file = "inbox = 101\nmax-rooms = 102\noutbox-frames = '103'\nopen = true";
    let variables = [
        ("SWITCHBOARD_CONFIG", "node.toml"),
        ("SWITCHBOARD_INBOX", "201"),
        ("SWITCHBOARD_MAX_ROOMS", "202"),
        ("SWITCHBOARD_PREFIX", ""),
        ("PATH", "/bin"),
    ];
    let Ok(Invocation::Serve(config)) = read(&["--inbox", "301"], &variables, file) else {
        panic!()
    };
    assert_eq!(
        (config.inbox, config.max_rooms, config.outbox_frames),
        (301, 202, 103)
    );
    assert_eq!((config.open, config.prefix.as_str()), (true, "switchboard"));
    assert!(config.warnings.is_empty());
}

#[test]
fn lists_are_repeated_flags_or_commas_or_arrays() {
    let flags = [
        "--trusted-proxy",
        "10.0.0.1,::1",
        "--trusted-proxy=172.16.0.0/12",
    ];
    let all: Vec<IpNet> = ["10.0.0.1/32", "::1/128", "172.16.0.0/12"]
        .map(|network| network.parse().unwrap())
        .into();
    assert_eq!(serve(&flags).trusted_proxy, all);
    let file =
        "trusted-proxy = ['10.0.0.1', '::1', '172.16.0.0/12']\nredis = 'redis://a, redis://b'";
    let Ok(Invocation::Serve(config)) = read(&["--config", "node.toml"], &[], file) else {
        panic!()
    };
    assert_eq!(config.trusted_proxy, all);
    assert_eq!(
        config.redis.iter().map(RedisUrl::host).collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[test]
fn values_are_read_in_their_units() {
    let config = serve(&[
        "--listen=localhost:1",
        "--history-age=2h",
        "--head-timeout=500ms",
        "--topic-linger=0",
        "--max-head=65536",
        "--recent-memory=2GiB",
        "--log-level=WARN",
        "--open",
        "--allow-origin=https://Chat.Example:443/,http://a:81,file://,null",
        "--allow-origin=https://*.Chat.example:444",
        "--node=a:1",
        "--echo-path=/echo",
    ]);
    assert_eq!(config.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(
        (config.history_age, config.head_timeout),
        (2 * HOUR, 5 * TENTH)
    );
    assert_eq!(
        (config.topic_linger, config.max_head),
        (Duration::ZERO, 64 << 10)
    );
    assert_eq!(
        (config.recent_memory, config.log_level),
        (2 << 30, LevelFilter::Warn)
    );
    assert_eq!(
        config.allow_origin,
        [
            "https://chat.example",
            "http://a:81",
            "null",
            "null",
            "https://*.chat.example:444"
        ]
    );
    assert!(config.open && config.node == "a:1" && config.echo_path.as_deref() == Some("/echo"));
}

#[test]
fn names_in_options_may_have_equals_signs_slashes_and_commas() {
    let flags = [
        "--history=team/1=500/1h,a=b=10/1m,x\\,y=20/1m",
        "--history=c,d=30/1m",
        "--room=a=b=public",
        "--presence-events=a=b=off,x\\,*=off",
        "--redis=redis://:a,b@one:1,rediss://:c\\,d@two:2",
    ];
    let error = refused(&flags, &[], "");
    assert!(error.contains("--history c: is not PATTERN"), "{error}");
    let config = serve(&[flags[0], flags[2], flags[3], flags[4]]);
    let rules: Vec<_> = config
        .history
        .iter()
        .map(|rule| rule.rooms.to_string())
        .collect();
    assert_eq!(rules, ["team/1", "a=b", "x,y"]);
    assert_eq!(config.room[0].rooms.to_string(), "a=b");
    let switches: Vec<_> = config
        .presence_events
        .iter()
        .map(|it| it.rooms.to_string())
        .collect();
    assert_eq!(switches, ["a=b", "x,*"]);
    let passwords: Vec<_> = config
        .redis
        .iter()
        .map(|url| url.password().unwrap())
        .collect();
    assert_eq!(passwords, ["a,b", "c,d"]);
    let variables = [
        ("SWITCHBOARD_REDIS", "redis://:a,b@one:1, redis://two:2"),
        ("SWITCHBOARD_HISTORY", "x\\,y=20/1m, z=1/1m"),
    ];
    let Ok(Invocation::Serve(config)) = read(&[], &variables, "") else {
        panic!("the variables are good")
    };
    assert_eq!((config.redis.len(), config.history.len()), (2, 2));
}

#[test]
fn days_and_decimal_sizes_are_accepted_wherever_times_and_sizes_are() {
    let config = serve(&[
        "--history=@*=1000/30d",
        "--history-age=1w",
        "--history-memory=1GB",
        "--recent-memory=512k",
    ]);
    let day = 24 * HOUR;
    assert_eq!(
        (config.history[0].limits.age, config.history_age),
        (30 * day, 7 * day)
    );
    assert_eq!(
        (config.history_memory, config.recent_memory),
        (1_000_000_000, 512 << 10)
    );
}

#[test]
fn errors_name_the_option_the_value_the_range_and_the_source() {
    assert_eq!(
        refused(&[], &[("SWITCHBOARD_HEARTBEAT", "0s")], ""),
        "--heartbeat 0s: must lie between 1s and 1h (got 0s, from SWITCHBOARD_HEARTBEAT)"
    );
    assert_eq!(
        refused(&["--config=node.toml"], &[], "max-message = 5"),
        "--max-message 5: must lie between 1KiB and 16MiB (got 5, from node.toml)"
    );
    assert_eq!(
        refused(&["--node", "a b", "--inbox=x"], &[], ""),
        "--node a b: must be 1 to 64 letters, digits or any of _.:- \
         (got a b, from the command line)\n\
         --inbox x: is not a whole number (got x, from the command line)"
    );
}

#[test]
fn values_of_each_kind_are_checked() {
    let long = "x".repeat(65);
    let table = [
        ("--listen=here", "not an address"),
        ("--listen=127.0.0.1:99999", "not an address"),
        ("--open=maybe", "true or false"),
        ("--prefix=", "1 to 64"),
        ("--prefix=a{b}", "1 to 64"),
        (&format!("--node={long}"), "1 to 64"),
        ("--redis=http://a", "redis://"),
        ("--redis-ca=/nowhere", "not a file"),
        ("--www=/etc/passwd", "not a directory"),
        ("--allow-origin=chat.example", "not an origin"),
        ("--allow-origin=https://a/b", "not an origin"),
        ("--allow-origin=*", "exactly one label"),
        ("--allow-origin=https://*", "exactly one label"),
        ("--allow-origin=*.chat.example", "exactly one label"),
        ("--allow-origin=*://chat.example", "exactly one label"),
        ("--allow-origin=https://*.example", "exactly one label"),
        (
            "--allow-origin=https://*.*.chat.example",
            "exactly one label",
        ),
        (
            "--allow-origin=https://a*.chat.example",
            "exactly one label",
        ),
        ("--allow-origin=https://chat.*.example", "exactly one label"),
        ("--allow-origin=https://chat.example:*", "exactly one label"),
        ("--allow-origin=https://*.127.0.0.1", "exactly one label"),
        ("--allow-origin=https://%2A", "exactly one label"),
        (
            "--trusted-proxy=10.0.0.0/33",
            "not an IP address or a network",
        ),
        (
            "--trusted-proxy=10.0.0.0/255.0.0.0",
            "not an IP address or a network",
        ),
        (
            "--trusted-proxy=proxy.example",
            "not an IP address or a network",
        ),
        ("--echo-path=echo", "begin with /"),
        ("--head-timeout=5", "a unit"),
        ("--head-timeout=-1s", "a unit"),
        ("--head-timeout=99999999999999999999s", "a unit"),
        ("--history-age=18446744073709551615h", "a unit"),
        ("--history=chat.*", "PATTERN=COUNT/TIME"),
        ("--presence-events=big.*", "PATTERN=off"),
        ("--presence-events=big room=off", "fits no room name"),
        ("--presence-grace=6m", "between 0s and 5m"),
        ("--history=chat.*=0/1h", "between 1 and"),
        ("--history=a b=1/1h", "fits no room name"),
        ("--max-head=64XB", "not a size"),
        ("--outbox-bytes=17179869184GiB", "not a size"),
        ("--inbox=-1", "whole number"),
        ("--log-level=loud", "one of off"),
    ];
    for (flag, expected) in table {
        let error = refused(&[flag], &[], "");
        assert!(error.contains(expected), "{flag}: {error}");
    }
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    let table: [(&[&str], &str); 6] = [
        (&["--api-listen=0.0.0.0:1"], "give --api-key-file"),
        (
            &["--listen=0.0.0.0:9090"],
            "--listen: 0.0.0.0:9090 can be reached from other machines",
        ),
        (&["--listen=[::]:9090"], "give --open"),
        (
            &["--heartbeat=10s"],
            "--pong-timeout: 10s must be shorter than --heartbeat (10s)",
        ),
        (
            &["--max-message=1MiB"],
            "must be at least four times --max-message (1MiB)",
        ),
        (
            &["--redis-ca=/etc/passwd", "--redis=redis://a"],
            "rediss://",
        ),
    ];
    for (flags, expected) in table {
        let error = refused(flags, &[], "");
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
    serve(&["--listen=[::ffff:127.0.0.1]:1"]);
    serve(&["--listen=0.0.0.0:1", "--open"]);
    serve(&["--redis-ca=/etc/passwd", "--redis=rediss://a"]);
    serve(&["--api-listen=[::1]:1"]);
}

#[test]
fn file_errors_name_the_line_or_key_and_show_no_contents() {
    let table = [
        (
            "colour = 1\nlisten = 'localhost:1'\nsize = 2",
            "node.toml: these keys are not options: colour, size",
        ),
        (
            "inbox = 64\nredis = redis://:secret@a",
            "node.toml: line 2: ",
        ),
        ("inbox = 1.5", "node.toml: the key inbox takes"),
        ("redis = [1, [2]]", "node.toml: the key redis takes texts"),
        (
            "inbox = [64, 65]",
            "--inbox (2 values): takes exactly one value",
        ),
    ];
    for (file, expected) in table {
        let error = refused(&["--config=node.toml"], &[], file);
        assert!(
            error.contains(expected) && !error.contains("secret"),
            "{file}: {error}"
        );
    }
    assert!(refused(&["--config=gone.toml"], &[], "").starts_with("gone.toml: "));
}

#[test]
fn unknown_variables_cause_only_a_warning() {
    let variables = [
        ("SWITCHBOARD_SERVICE_HOST", "10.0.0.1"),
        ("SWITCHBOARD_INBOX", "64"),
    ];
    let Ok(Invocation::Serve(config)) = read(&[], &variables, "") else {
        panic!()
    };
    assert_eq!(
        config.warnings,
        ["SWITCHBOARD_SERVICE_HOST is set, but is not an option"]
    );
}

#[test]
fn check_config_prints_an_equivalent_file_without_passwords() {
    let flags = [
        "--check-config",
        "--node=a",
        "--open",
        "--heartbeat=90s",
        "--max-head=1025",
    ];
    let Ok(Invocation::CheckConfig(checked)) = read(&flags, &[], "") else {
        panic!()
    };
    let text = checked.to_toml();
    assert!(text.contains("heartbeat = \"90s\"\n") && text.contains("max-head = \"1025\"\n"));
    let Ok(Invocation::Serve(again)) = read(&["--config=node.toml"], &[], &text) else {
        panic!()
    };
    assert_eq!(*again, serve(&flags[1..]));

    let flags = ["--check-config", "--redis=redis://ada:swordfish@a:1/2"];
    let Ok(Invocation::CheckConfig(checked)) = read(&flags, &[("SWITCHBOARD_X", "1")], "") else {
        panic!()
    };
    let text = checked.to_toml();
    assert!(text.starts_with("# SWITCHBOARD_X is set"));
    assert!(
        text.contains("redis = [\"redis://ada:***@a:1/2\"]\n"),
        "{text}"
    );
    assert!(!format!("{:?}", serve(&flags[1..])).contains("swordfish"));
}

#[test]
fn help_explains_every_option_with_variable_and_default() {
    let Ok(Invocation::Text(help)) = read(&["--help"], &[], "") else {
        panic!()
    };
    let text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, _) in Config::default().show() {
        let variable = format!(
            "[env: SWITCHBOARD_{}]",
            name.replace('-', "_").to_uppercase()
        );
        assert!(
            text.contains(&format!("--{name}")) && text.contains(&variable),
            "{name}"
        );
    }
    assert!(text.contains("[default: 25s] [1s to 1h]"), "{text}");

    let text = |args: &[&str]| {
        let args = args.iter().map(OsString::from);
        Invocation::parse(args, [], |_| unreachable!("no file was given"))
    };
    let version = format!("switchboard {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        text(&["switchboard", "--version"]).unwrap(),
        Invocation::Text(version)
    );
    for wrong in [
        &["switchboard"][..],
        &["switchboard", "sing"],
        &["switchboard", "serve", "--colour"],
    ] {
        assert!(
            matches!(text(wrong), Err(ConfigError::Usage(_))),
            "{wrong:?}"
        );
    }
}

#[test]
fn redis_addresses_are_parsed() {
    let url: RedisUrl = "rediss://ada:p%40ss%2F@[::1]:6380/3".parse().unwrap();
    assert_eq!(
        (url.tls(), url.host(), url.port(), url.db()),
        (true, "::1", 6380, 3)
    );
    assert_eq!((url.user(), url.password()), (Some("ada"), Some("p@ss/")));
    assert_eq!(url.to_string(), "rediss://ada:***@[::1]:6380/3");

    let url: RedisUrl = "redis://:hidden@cache.example".parse().unwrap();
    assert_eq!(
        (url.tls(), url.host(), url.port(), url.db()),
        (false, "cache.example", 6379, 0)
    );
    assert_eq!((url.user(), url.password()), (None, Some("hidden")));
    assert_eq!(url.as_str(), "redis://:hidden@cache.example");

    let url: RedisUrl = "redis://127.0.0.1/".parse().unwrap();
    assert_eq!(
        (url.host(), url.user(), url.password()),
        ("127.0.0.1", None, None)
    );

    let table = [
        ("127.0.0.1:6379", RedisUrlError::Scheme),
        ("redis:/a", RedisUrlError::Scheme),
        ("http://a", RedisUrlError::Scheme),
        ("redis://", RedisUrlError::Host),
        ("redis://:6379", RedisUrlError::Host),
        ("redis://a:port", RedisUrlError::Syntax),
        ("redis://a:70000", RedisUrlError::Syntax),
        ("redis://a:0", RedisUrlError::Port),
        ("redis://ada@a", RedisUrlError::Password),
        ("redis://a/one", RedisUrlError::Db),
        ("redis://a/-1", RedisUrlError::Db),
        ("redis://a?protocol=3", RedisUrlError::Rest),
        ("rediss://a#insecure", RedisUrlError::Rest),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse::<RedisUrl>().unwrap_err(), expected, "{text}");
    }
}

#[test]
fn errors_about_redis_addresses_hide_the_password() {
    for text in [
        "redis://:se/cret@a:b",
        "rediss://u:secret@a/x",
        "u:secret@a",
        "redis://u:se@cret@a:0",
    ] {
        let error = refused(&["--redis", text], &[], "");
        assert!(
            !error.contains("cret") && error.contains("***@a"),
            "{error}"
        );
    }
}

#[test]
fn what_editors_put_around_the_contents_of_a_file_is_left_out() {
    const SECRET: &str = "a secret with blanks, of 32 bytes";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    for (before, behind) in [
        ("", ""),
        ("", "\r\n"),
        ("", "\n\n"),
        ("\u{feff}", "\n"),
        (" \t", " "),
    ] {
        std::fs::write(&path, format!("{before}{SECRET}{behind}")).unwrap();
        for option in ["token-secret-file", "webhook-secret-file"] {
            let flag = format!("--{option}={}", path.display());
            let config = match option {
                "token-secret-file" => serve(&[&flag]),
                _ => serve(&[&flag, "--webhook-url=https://a"]),
            };
            let file = config.token_secret_file.or(config.webhook_secret_file);
            assert_eq!(
                file.unwrap().secret.expose(),
                SECRET.as_bytes(),
                "{before:?} {behind:?}"
            );
        }
    }
    std::fs::write(&path, format!("\u{feff}  {}\n", &SECRET[2..])).unwrap();
    let error = refused(
        &[&format!("--token-secret-file={}", path.display())],
        &[],
        "",
    );
    assert!(error.contains("holds 31 bytes"), "{error}");

    let Ok(Invocation::Serve(config)) =
        read(&["--config", "node.toml"], &[], "\u{feff}inbox = 101\n")
    else {
        panic!()
    };
    assert_eq!(config.inbox, 101);
}

#[test]
fn webhooks_need_a_secret_file_and_no_secret_in_the_url() {
    let file = "--webhook-secret-file=/etc/passwd";
    for (flags, expected) in [
        (&["--webhook-url=https://a"][..], "webhook-secret-file"),
        (&[file], "needs --webhook-url"),
        (&["--webhook-room=a"], "needs --webhook-url"),
        (
            &["--webhook-ca=/etc/passwd", "--webhook-url=http://a", file],
            "begins with https://",
        ),
        (&["--webhook-url=ftp://a", file], "must begin with https://"),
        (
            &["--webhook-url=a.example/x", file],
            "must begin with https://",
        ),
        (
            &["--webhook-url=http://ada:pw@a/x", file],
            "user or a password",
        ),
        (&["--webhook-url=http://@a/x", file], "user or a password"),
        (&["--webhook-url=http://a:0/", file], "port 0"),
        (&["--webhook-url=http://a/#x", file], "# part"),
        (&["--webhook-url=https://", file], "is not a URL"),
        (
            &["--webhook-secret-file=/none", "--webhook-url=http://a"],
            "cannot be read",
        ),
        (
            &["--webhook-url=http://a", "--webhook-room=a b", file],
            "fits no room name",
        ),
    ] {
        let error = refused(flags, &[], "");
        assert!(error.contains(expected), "{flags:?}: {error}");
        assert!(!error.contains("pw"), "{error}");
    }
    let mistyped = refused(&["--webhook-url=htp://a/x?token=hidden", file], &[], "");
    assert!(
        mistyped.contains("htp://a/x?***") && !mistyped.contains("hidden"),
        "{mistyped}"
    );
}

#[test]
fn webhook_queries_are_sent_and_never_shown() {
    let url: WebhookUrl = "https://hooks.example:8443/a/b?token=hidden"
        .parse()
        .unwrap();
    assert_eq!(
        (url.tls(), url.host(), url.port()),
        (true, "hooks.example", 8443)
    );
    assert_eq!(
        (url.authority(), url.target()),
        ("hooks.example:8443", "/a/b?token=hidden")
    );
    assert_eq!(format!("{url} {url:?}").matches("hidden").count(), 0);
    let url: WebhookUrl = "http://[::1]".parse().unwrap();
    assert_eq!(
        (url.host(), url.port(), url.authority(), url.target()),
        ("::1", 80, "[::1]", "/")
    );

    let flags = [
        "--check-config",
        "--webhook-url=http://hooks.example/a?token=hidden",
        "--webhook-secret-file=/etc/passwd",
        "--webhook-room=chat.*,@*",
    ];
    let Ok(Invocation::CheckConfig(checked)) = read(&flags, &[], "") else {
        panic!()
    };
    let text = checked.to_toml();
    assert!(
        text.starts_with("# --webhook-url http://hooks.example/a?***: names"),
        "{text}"
    );
    assert!(
        text.contains("webhook-room = [\"chat.*\", \"@*\"]\n"),
        "{text}"
    );
    assert!(
        text.contains("webhook-secret-file = \"/etc/passwd\"\n"),
        "{text}"
    );
    assert!(
        !text.contains("hidden") && !text.contains("root:"),
        "{text}"
    );
}

#[test]
fn webhooks_without_tls_to_other_machines_cause_a_warning() {
    for (url, warned) in [
        ("http://hooks.example", true),
        ("http://10.0.0.1", true),
        ("https://hooks.example", false),
        ("http://localhost:1", false),
        ("http://127.0.0.2", false),
        ("http://[::1]", false),
    ] {
        let url = format!("--webhook-url={url}");
        let config = serve(&[&url, "--webhook-secret-file=/etc/passwd"]);
        assert_eq!(!config.warnings.is_empty(), warned, "{url}");
    }
}

/// Parses flags behind `switchboard token` and variables.
fn token(flags: &[&str], variables: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    let args = ["switchboard", "token", "--user=ada"].iter().chain(flags);
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    Invocation::parse(args.map(OsString::from), variables, |_| {
        unreachable!("it reads no file of options")
    })
}

#[test]
fn token_errors_name_the_option_the_value_and_the_source() {
    let secret = ("SWITCHBOARD_TOKEN_SECRET_FILE", "/none");
    let flags = ["--expires=9000h", "--rooms=a b,c", "--issuer="];
    let error = token(&flags, &[secret]).expect_err("refused").to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(
        lines[0].starts_with("--token-secret-file /none: cannot be read")
            && lines[0].ends_with("(got /none, from SWITCHBOARD_TOKEN_SECRET_FILE)"),
        "{error}"
    );
    assert_eq!(
        lines[1..],
        [
            "--expires 9000h: must lie between 1s and 8760h (got 9000h, from the command line)",
            "--issuer : must have 1 to 256 bytes and no control characters \
             (got , from the command line)",
            "--rooms a b: fits no room name (got a b, from the command line)",
        ]
    );
    assert_eq!(
        token(&[], &[]).expect_err("refused").to_string(),
        "--token-secret-file: is needed: the file whose secret the nodes have"
    );
}

#[test]
fn token_is_configured_by_flags_and_the_variable_of_the_secret_alone() {
    let variables = [
        ("SWITCHBOARD_TOKEN_SECRET_FILE", "/etc/passwd"),
        ("SWITCHBOARD_USER", "eve"),
        ("SWITCHBOARD_HISTORY", "a b"),
        ("SWITCHBOARD_LISTEN", "here"),
    ];
    let flags = ["--rooms=a,b", "--join=c", "--audience=chat"];
    let Ok(Invocation::Token(request)) = token(&flags, &variables) else {
        panic!()
    };
    assert_eq!(request.user.as_str(), "ada");
    assert_eq!(request.expires, HOUR);
    assert_eq!(request.audience.as_deref(), Some("chat"));
    let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&request.join), ["c", "a", "b"]);
    assert_eq!(texts(&request.history), ["a", "b"]);
}
