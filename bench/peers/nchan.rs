//! nchan: this machine's nginx with the module that Debian ships, on one worker, by
//! `nchan/nginx.conf.in`, with its own storage in Redis between two.

use std::process::Command;

use super::contender::Peer;
use super::installed;
use crate::support::Outcome;
use crate::support::dialogue::Dialogue;

pub const NCHAN: Peer = Peer {
    name: "nchan",
    dialogue: Dialogue::Nchan,
    command: nginx,
};

const CONFIG: &str = include_str!("nchan/nginx.conf.in");

fn nginx(port: u16, redis: Option<u16>) -> Outcome<Command> {
    let module = installed("nchan/usr/lib/nginx/modules/ngx_nchan_module.so");
    if !module.exists() {
        return Err(format!("there is no {}", module.display()).into());
    }
    let folder = installed(&format!("nchan/{port}"));
    std::fs::create_dir_all(&folder)?;
    let upstream = redis.map_or(String::new(), |port| {
        format!("upstream redis {{ nchan_redis_server redis://127.0.0.1:{port}; }}")
    });
    let pass = redis.map_or("", |_| "nchan_redis_pass redis;");
    let config = CONFIG
        .replace("@UPSTREAM@", &upstream)
        .replace("@PASS@", pass)
        .replace("@MODULE@", &module.display().to_string())
        .replace("@FOLDER@", &folder.display().to_string())
        .replace("@PORT@", &port.to_string());
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file);
    command.arg("-p").arg(folder);
    command.args(["-e", "stderr"]);
    Ok(command)
}
