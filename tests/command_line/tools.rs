//! The commands that need no server: `check`, `drain`, `completions` and `man`.

use super::*;

#[test]
fn check_says_what_a_node_would_do_and_refuses_as_serve_does() {
    run(async {
        let arguments = [
            "check",
            "--redis",
            "redis://:hidden@10.0.0.9",
            "--prefix",
            "p",
        ];
        let ended = run_to_end(&arguments, &[]).await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        for words in [
            "127.0.0.1:9090",
            "open mode",
            "redis://:***@10.0.0.9:6379/0",
            "prefix p",
        ] {
            assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
        }
        assert!(!ended.stdout.contains("hidden"), "{}", ended.stdout);
        let stderr = refused(&["check", "--listen", "0.0.0.0:1", "--inbox", "1"], &[]).await;
        assert!(stderr.contains("--inbox 1"), "{stderr}");
        let file = run_to_end(&["check", "--toml"], &[]).await;
        let same = run_to_end(&["serve", "--check-config"], &[]).await;
        assert_eq!(file.stdout, same.stdout);
        assert!(file.stdout.contains("inbox = 8192"), "{}", file.stdout);
    });
}

#[test]
fn check_finds_that_the_machine_has_too_few_files() {
    run(async {
        let mut shell = Command::new("sh");
        without_variables(&mut shell);
        shell.args(["-c", "ulimit -n 1000; exec \"$0\" \"$@\"", BINARY, "check"]);
        let output = shell.args(["--max-connections", "800"]).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("1056 open files"), "{stderr}");
    });
}

#[test]
fn drain_ends_when_the_node_is_gone() {
    run(async {
        let mut node = NodeProcess::start(&[]).await;
        let mut client = node.client().await;
        let id = node.id().to_string();
        let arguments = ["drain", &*id];
        let draining = run_to_end(&arguments, &[]);
        let leaving = async {
            client.push("bye").await;
            let (code, _) = client.closed().await.expect("a close frame");
            assert_eq!(code, 3001);
            assert_eq!(node.exit().await.code(), Some(0));
        };
        let (ended, ()) = futures::join!(draining, leaving);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        let again = run_to_end(&["drain", &id], &[]).await;
        assert_eq!(again.status.code(), Some(1), "{}", again.stderr);
    });
}

#[test]
fn drain_signals_no_other_program_and_waits_no_longer_than_told() {
    run(async {
        let mut other = Command::new("sleep").arg("600").spawn().expect("it starts");
        let id = other.id().to_string();
        let ended = run_to_end(&["drain", &id], &[]).await;
        assert_eq!(ended.status.code(), Some(1));
        assert!(
            ended.stderr.contains("not a switchboard"),
            "{}",
            ended.stderr
        );
        assert!(
            other.try_wait().expect("it is ours").is_none(),
            "it goes on"
        );
        other.kill().expect("it is ours");
        other.wait().expect("it is ours");

        let node = NodeProcess::start(&["--close-timeout", "60s"]).await;
        // The client receives the close frame, but does not answer it.
        let _stays = FrameClient::welcomed(node.address).await;
        let id = node.id().to_string();
        let ended = run_to_end(&["drain", &id, "--timeout", "1s"], &[]).await;
        assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    });
}

#[test]
fn completions_and_manual_pages_have_every_command() {
    run(async {
        for (shell, words) in [
            ("bash", "complete -F"),
            ("zsh", "#compdef switchboard"),
            ("fish", "complete -c switchboard"),
        ] {
            let script = run_to_end(&["completions", shell], &[]).await;
            assert_eq!(script.status.code(), Some(0), "{}", script.stderr);
            for word in [words, "publish", "rooms", "api-key-file"] {
                assert!(script.stdout.contains(word), "{shell}: {word}");
            }
        }
        let program = run_to_end(&["man"], &[]).await;
        assert!(
            program.stdout.contains(".TH switchboard 1"),
            "{}",
            program.stdout
        );
        let page = run_to_end(&["man", "serve"], &[]).await;
        assert!(
            page.stdout.contains(".TH switchboard-serve 1"),
            "{}",
            page.stdout
        );
        assert!(page.stdout.contains("presence\\-grace"), "{}", page.stdout);
        refused(&["man", "nothing"], &[]).await;
        refused(&["completions", "nothing"], &[]).await;
    });
}
