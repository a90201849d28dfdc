//! How long a number takes to another party and back, through two queues.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use tenfold::{Process, Queue};

use super::ipc::{self, Ends};
use super::{Failure, Row, Unit};
use crate::cell::Cell;
use crate::clock::{now, seconds_since};

pub(crate) const ROW: Row = Row {
    name: "round-trip",
    title: "round trip of a u64",
    unit: Unit::Seconds,
    cells: &[
        Cell { system: "tenfold", measure: tenfold },
        Cell { system: "crossbeam-channel (threads)", measure: crossbeam },
        Cell { system: "ipc-channel", measure: ipc_channel },
        Cell { system: "two plain pipes", measure: pipes },
    ],
};

const TRIPS: u64 = 50_000;

/// Seconds a trip, after some trips to warm up.
fn trips(mut trip: impl FnMut(u64) -> Result<u64, Failure>) -> Result<f64, Failure> {
    (0..TRIPS / 10).try_for_each(|i| trip(i).map(drop))?;
    let start = now();
    for i in 0..TRIPS {
        if trip(i)? != i {
            return Err("another number came back".into());
        }
    }
    Ok(seconds_since(start) / TRIPS as f64)
}

fn echo((from_us, to_us): (Queue<u64>, Queue<u64>)) -> tenfold::Result<()> {
    loop {
        match from_us.get()? {
            u64::MAX => return Ok(()),
            number => to_us.put(number)?,
        }
    }
}

fn tenfold() -> Result<f64, Failure> {
    let (to_echo, from_echo) = (Queue::new()?, Queue::new()?);
    let child = Process::spawn(echo, (to_echo.clone(), from_echo.clone()))?;
    let time = trips(|i| {
        to_echo.put(i)?;
        Ok(from_echo.get()?)
    })?;
    to_echo.put(u64::MAX)?;
    child.join()?;
    Ok(time)
}

fn crossbeam() -> Result<f64, Failure> {
    let (to_echo, from_us) = crossbeam_channel::unbounded::<u64>();
    let (to_us, from_echo) = crossbeam_channel::unbounded::<u64>();
    let echo = thread::spawn(move || from_us.iter().try_for_each(|number| to_us.send(number)));
    let time = trips(|i| {
        to_echo.send(i)?;
        Ok(from_echo.recv()?)
    })?;
    drop(to_echo);
    echo.join().map_err(|_| "the echo has panicked")??;
    Ok(time)
}

fn ipc_channel() -> Result<f64, Failure> {
    let (mut child, ends) = ipc::start("echo")?;
    let Ends::Echo(to_echo, from_echo) = ends else { return Err("the child has another role".into()) };
    let time = trips(|i| {
        to_echo.send(i)?;
        from_echo.recv().map_err(|error| format!("{error:?}").into())
    })?;
    drop(to_echo);
    child.wait()?;
    Ok(time)
}

/// `cat` on the other side: the kernel's share of any channel that is made of pipes.
fn pipes() -> Result<f64, Failure> {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(mut to_echo), Some(mut from_echo)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipes".into());
    };
    let time = trips(|i| {
        to_echo.write_all(&i.to_ne_bytes())?;
        let mut bytes = [0; 8];
        from_echo.read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    })?;
    drop(to_echo);
    child.wait()?;
    Ok(time)
}
