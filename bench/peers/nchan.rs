//! nchan: this machine's nginx with the module that Debian ships, on one worker, by `nchan/nginx.conf.in`. Alone: with Redis 7
//! behind it, the module as Debian builds it brought nothing to a second node.

use std::process::Command;

use super::{Peer, installed};
use crate::support::Outcome;
use crate::support::dialogue::Dialogue;

pub const NCHAN: Peer = Peer {
    name: "nchan",
    dialogue: Dialogue::Nchan,
    has_redis: false,
    command: |port, _| nginx(port),
};

const CONFIG: &str = include_str!("nchan/nginx.conf.in");

fn nginx(port: u16) -> Outcome<Command> {
    let module = installed("nchan/usr/lib/nginx/modules/ngx_nchan_module.so");
    if !module.exists() {
        return Err(format!("there is no {}", module.display()).into());
    }
    let folder = installed(&format!("nchan/{port}"));
    std::fs::create_dir_all(&folder)?;
    let config = CONFIG
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
