//! The process: ports, signals, exit codes, and a lack of file descriptors.

use super::*;
use crate::support::redis_server::{Options, RedisServer, free_port};

#[test]
fn taken_port_is_reported_with_the_option_that_changes_it() {
    run(async {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = taken.local_addr().expect("it is bound").to_string();
        let ended = run_to_end(&["serve", "--listen", &address], &[]).await;
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains(&address), "{}", ended.stderr);
        assert!(ended.stderr.contains("--listen"), "{}", ended.stderr);
    });
}

#[test]
fn redis_cluster_and_sentinel_are_refused_at_start() {
    let port = format!("--cluster-port {}", free_port());
    let cluster = Options::default().arg("--cluster-enabled yes").arg(&port);
    for (server, sentence) in [
        (RedisServer::with(cluster), "it is a Redis Cluster"),
        (
            RedisServer::sentinel(),
            "it is a Sentinel; give the address of the master",
        ),
    ] {
        run(async {
            let arguments = ["serve", "--listen=127.0.0.1:0", "--redis", &server.url()];
            let ended = run_to_end(&arguments, &[]).await;
            assert_eq!(ended.status.code(), Some(1));
            assert!(ended.stderr.contains(sentence), "{}", ended.stderr);
        });
    }
}

#[test]
fn exit_code_is_the_same_when_the_output_is_closed() {
    for (argument, code) in [("--inbox=0", 2), ("--help", 0)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let stdout = writer.try_clone().expect("a descriptor");
        let mut closed = command(&["serve", argument]);
        let status = closed.stdout(stdout).stderr(writer).status();
        assert_eq!(status.expect("it starts").code(), Some(code), "{argument}");
    }
}

#[test]
fn sigterm_sigint_and_sigquit_send_close_frames_and_exit_with_zero() {
    run(async {
        let stops = [
            NodeProcess::terminate,
            NodeProcess::interrupt,
            NodeProcess::quit,
        ];
        for stop in stops {
            let mut node = NodeProcess::start(&[]).await;
            let mut clients = [node.client().await, node.client().await];
            stop(&node);
            for client in &mut clients {
                let bye = client.push("bye").await;
                assert_eq!(bye["reason"], "draining");
                assert!(bye["retry"].is_u64(), "{bye}");
                let (code, _) = client.closed().await.expect("a close frame");
                assert_eq!(code, 3001);
            }
            assert_eq!(node.exit().await.code(), Some(0));
            let last = node.log().pop().expect("a log");
            let last: Value = serde_json::from_str(&last).expect("JSON");
            assert_eq!(last["msg"], "stopped");
            assert_eq!(node.errors(), "");
        }
    });
}

#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    run(async {
        let mut node = NodeProcess::start(&["--close-timeout", "60s"]).await;
        // The client receives the close frame, but does not answer it.
        let _stays = FrameClient::welcomed(node.address).await;
        node.terminate();
        node.logged("draining").await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
    });
}

#[test]
fn sighup_is_ignored_with_a_line_before_and_in_a_drain() {
    const LINE: &str = "SIGHUP is ignored: restart the node to read changed files";
    run(async {
        let mut node = NodeProcess::start(&["--close-timeout", "60s"]).await;
        let mut client = node.client().await;
        node.hang_up();
        node.logged(LINE).await;
        client.join("lobby").await;

        // The client receives the close frame, but does not answer it: the drain goes on.
        let _stays = FrameClient::welcomed(node.address).await;
        node.terminate();
        node.logged("draining").await;
        node.hang_up();
        eventually("it is ignored again", || {
            let lines = node.log();
            lines.iter().filter(|line| line.contains(LINE)).count() == 2
        })
        .await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
    });
}

#[test]
fn a_killed_node_can_be_started_again_on_its_port_at_once() {
    run(async {
        let mut node = NodeProcess::start(&[]).await;
        let mut client = node.client().await;
        node.kill();
        assert_eq!(client.closed().await, None);
        assert_eq!(node.exit().await.signal(), Some(9));
        let address = node.address.to_string();
        let next = NodeProcess::spawn(command(&["serve", "--listen", &address])).await;
        assert_eq!(next.address, node.address);
        next.client().await.expect_silence().await;
    });
}

#[test]
fn node_without_redis_ends_on_sigterm() {
    run(async {
        let mut node = NodeProcess::start(&["--redis", NOTHING]).await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
    });
}

#[test]
fn node_out_of_files_serves_its_clients_and_accepts_again_later() {
    run(async {
        let mut shell = Command::new("sh");
        without_variables(&mut shell);
        shell.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", BINARY, "serve"]);
        shell.args(["--listen", "127.0.0.1:0", "--max-connections", "1000"]);
        shell.args(["--head-timeout", "60s"]);
        let mut node = NodeProcess::spawn(shell).await;
        let mut client = node.client().await;
        let mut many = Vec::new();
        for _ in 0..100 {
            many.push(http::connect(node.address).await);
        }
        node.logged("cannot accept connections").await;

        // A node that tries again without a pause uses a whole core.
        let before = node.cpu_time();
        for _ in 0..10 {
            client.expect_silence().await;
            runtime::sleep(Duration::from_millis(100)).await;
        }
        let used = node.cpu_time() - before;
        assert!(used < Duration::from_millis(300), "{used:?} in ten glances");

        drop(many);
        node.client().await.expect_silence().await;
        client.expect_silence().await;
    });
}
