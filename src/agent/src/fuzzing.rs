//! For `fuzz/` only: what a monitor sends, and archives.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::rc::Rc;

use protocol::agent::{FromAgent, Request, ToAgent, Wake};
use protocol::frame::{Assembler, encode};
use rustix::net::{RecvFlags, recv};

use crate::asleep::{Turn, turn};
use crate::connection::Connection;
use crate::containers::{check_name, subject};
use crate::{NotAwake, WakeUp};

/// The monitor's side of the connection, up to the point where requests are carried out: to an agent that sleeps, and to one
/// that was woken first.
pub fn requests(bytes: &[u8]) {
    conversation(bytes);
    let request = Request::Wake(Wake {
        realtime_ns: 1,
        entropy: [1; 32],
    });
    let wake = encode(&ToAgent { seq: 0, request }).expect("short");
    conversation(&[&wake, bytes].concat());
}

fn conversation(bytes: &[u8]) {
    let Ok((ours, theirs)) = sys::packet::stream_pair() else {
        return;
    };
    let Ok(mut connection) = Connection::new(ours) else {
        return;
    };
    let woken = Rc::new(Cell::new(0));
    let wake = counting(woken.clone());
    let mut replies = Assembler::new(protocol::frame::MAX_LEN);
    let mut granted = 0;
    let mut theirs = Some(File::from(theirs));
    let mut parts = bytes.chunks(8192);
    loop {
        match parts.next() {
            Some(part) => {
                if theirs
                    .as_mut()
                    .is_some_and(|end| end.write_all(part).is_err())
                {
                    return;
                }
            }
            None => theirs = None,
        }
        let goes_on = take(&mut connection, &wake, &woken);
        if let Some(end) = &theirs {
            granted += grants(&mut replies, end);
            assert!(granted <= woken.get(), "granted in its sleep");
        }
        if !goes_on {
            return;
        }
        assert!(theirs.is_some(), "a closed connection is noticed");
    }
}

/// Takes what has come; false at the end of the connection.
fn take(connection: &mut Connection, wake: &WakeUp, woken: &Cell<usize>) -> bool {
    if woken.get() == 0 {
        match turn(connection, wake) {
            Err(_) | Ok(Turn::Over(_)) => return false,
            Ok(Turn::Wait) => {
                assert_eq!(
                    woken.get(),
                    0,
                    "a wake that succeeds is the end of the sleep"
                );
                return true;
            }
            Ok(Turn::Awake) => assert_eq!(woken.get(), 1, "nothing but a wake wakes"),
        }
    }
    loop {
        match connection.next() {
            Err(_) => return false,
            Ok(None) => return true,
            Ok(Some(message)) => look_at(message.request),
        }
    }
}

/// Wakes, and counts that, where the first byte is odd.
fn counting(woken: Rc<Cell<usize>>) -> WakeUp {
    Box::new(move |wake| {
        if wake.entropy[0] % 2 == 0 {
            return Err(NotAwake {
                step: "be odd",
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        }
        woken.set(woken.get() + 1);
        Ok(())
    })
}

/// How many requests the agent says to have carried out.
fn grants(replies: &mut Assembler, end: &File) -> usize {
    let mut buffer = [0; 8192];
    while let Ok((len @ 1.., _)) = recv(end, &mut buffer, RecvFlags::DONTWAIT) {
        replies.push(&buffer[..len]);
    }
    let mut granted = 0;
    while let Some(message) = replies.next().expect("the agent's own frames") {
        let FromAgent::Reply { result, .. } = message else {
            panic!("there is no container to tell of");
        };
        granted += usize::from(result.is_ok());
    }
    granted
}

/// What is read of a request before anything is done about it.
fn look_at(request: Request) {
    let name = subject(&request).map(str::to_owned);
    if let Some(name) = name.filter(|name| check_name("a name", name).is_ok()) {
        let path = std::path::Path::new("/run").join(&name);
        assert_eq!(path.parent(), Some(std::path::Path::new("/run")));
    }
    match request {
        Request::Create(create) => {
            let _ = container::Spec::from_json(create.spec.get().as_bytes());
        }
        Request::Exec(exec) => {
            let _ = serde_json::from_str::<container::Process>(exec.document.get());
        }
        Request::Update { resources, .. } => {
            let _ = serde_json::from_str::<container::Resources>(resources.get());
        }
        _ => {}
    }
}

/// An archive that a user sends into a container, up to the point where it is unpacked.
pub fn archive(bytes: &[u8]) {
    crate::files::read_archive(bytes);
}
