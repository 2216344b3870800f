//! nchan: this machine's nginx with the module that Debian ships, on one worker, by `nchan/nginx.conf.in`.

use std::process::Command;

use super::{Peer, installed};
use crate::support::Outcome;
use crate::support::dialogue::Dialogue;

pub const NCHAN: Peer = Peer {
    name: "nchan",
    dialogue: Dialogue::Nchan,
    command,
};

const CONFIG: &str = include_str!("nchan/nginx.conf.in");

fn command(port: u16, redis: Option<u16>) -> Outcome<Command> {
    let module = installed("nchan/usr/lib/nginx/modules/ngx_nchan_module.so");
    if !module.exists() {
        return Err(format!("there is no {}", module.display()).into());
    }
    let folder = installed(&format!("nchan/{port}"));
    std::fs::create_dir_all(&folder)?;
    let upstream = redis
        .map(|port| format!("upstream redis {{ nchan_redis_server redis://127.0.0.1:{port}; }}"));
    let pass = redis.map(|_| "nchan_redis_pass redis;");
    let config = CONFIG
        .replace("@MODULE@", &module.display().to_string())
        .replace("@FOLDER@", &folder.display().to_string())
        .replace("@PORT@", &port.to_string())
        .replace("@UPSTREAM@", &upstream.unwrap_or_default())
        .replace("@PASS@", pass.unwrap_or_default());
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file);
    command.arg("-p").arg(folder);
    command.args(["-e", "stderr"]);
    Ok(command)
}
