//! The other process of a cell of ipc-channel: this executable again, which finds its parent by the
//! name of a one-shot server.

use std::process::{Child, Command};

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};

use super::Failure;

/// Messages that a producing child sends.
pub(crate) const PRODUCED: u64 = 200_000;
/// Large messages that a producing child sends.
pub(crate) const LARGE_PRODUCED: u64 = 400;

/// What a child gives to its parent.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ends {
    /// The child produces numbers.
    Numbers(IpcReceiver<u64>),
    /// The child sends back what it gets.
    Echo(IpcSender<u64>, IpcReceiver<u64>),
    /// The child produces large messages.
    Large(IpcBytesReceiver),
}

/// Starts a child for `role` and returns it with its ends.
pub(crate) fn start(role: &str) -> Result<(Child, Ends), Failure> {
    let (server, name) = IpcOneShotServer::<Ends>::new()?;
    let exe = std::env::current_exe()?;
    let child = Command::new(exe).args(["--ipc-child", role, "--server", &name]).spawn()?;
    let (_, ends) = server.accept()?;
    Ok((child, ends))
}

/// Runs in the child.
pub(crate) fn child(role: &str, server: &str) -> Result<(), String> {
    play(role, server).map_err(|error| error.to_string())
}

fn play(role: &str, server: &str) -> Result<(), Failure> {
    let parent = IpcSender::<Ends>::connect(server.to_string())?;
    match role {
        "numbers" => {
            let (sender, receiver) = ipc::channel()?;
            parent.send(Ends::Numbers(receiver))?;
            for i in 0..PRODUCED {
                sender.send(i)?;
            }
        }
        "echo" => {
            let (to_child, from_parent) = ipc::channel()?;
            let (to_parent, from_child) = ipc::channel()?;
            parent.send(Ends::Echo(to_child, from_child))?;
            while let Ok(number) = from_parent.recv() {
                to_parent.send(number)?;
            }
        }
        "large" => {
            let (sender, receiver) = ipc::bytes_channel()?;
            parent.send(Ends::Large(receiver))?;
            let message = vec![7_u8; super::large_messages::LEN];
            for _ in 0..LARGE_PRODUCED {
                sender.send(&message)?;
            }
        }
        _ => return Err(format!("no role is called {role}").into()),
    }
    Ok(())
}
