//! Streams over real sockets: what the guest sends, what clients get, and back pressure.

use std::fs::File;
use std::io::{Read, Write};

use super::*;

const PORT: u32 = 2000;
const TOKEN: [u8; TOKEN_LEN] = [7; TOKEN_LEN];

struct Fixture {
    streams: Streams,
    poller: Poller,
    process: ProcessId,
    events: Vec<String>,
}

fn fixture() -> Fixture {
    Fixture {
        streams: Streams::new(),
        poller: Poller::new().unwrap(),
        process: ProcessId::first("box"),
        events: Vec::new(),
    }
}

impl Fixture {
    /// A stream that the guest has opened.
    fn guest(&mut self, port: u32, role: Role) -> File {
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        let stream = Stream { port, token: TOKEN };
        self.streams
            .open(&self.poller, &stream, role, ours)
            .unwrap();
        let mut theirs = File::from(theirs);
        theirs.write_all(&TOKEN).unwrap();
        self.turn();
        theirs
    }

    fn output(&mut self, port: u32) -> File {
        let process = self.process.clone();
        self.guest(
            port,
            Role::Output {
                process,
                is_stderr: false,
            },
        )
    }

    fn attach(&mut self, client: ClientId, streams: [bool; 3], primary: bool) -> Vec<File> {
        let how = Attachment {
            streams,
            terminal: false,
            primary,
            ends_input: true,
        };
        let process = self.process.clone();
        let (ends, _) = self
            .streams
            .attach(&self.poller, client, &process, how)
            .unwrap();
        ends.into_iter().map(File::from).collect()
    }

    /// Serves until nothing is ready.
    fn turn(&mut self) {
        loop {
            let ready = self.poller.wait(Some(Instant::now())).unwrap();
            if ready.is_empty() {
                return;
            }
            for (source, ready) in ready {
                let events = match source {
                    Source::Guest(port) => {
                        self.streams.guest_ready(&self.poller, port, ready).unwrap()
                    }
                    Source::Sink(id) => self.streams.sink_ready(&self.poller, id, ready).unwrap(),
                    other => panic!("{other:?}"),
                };
                self.note(events);
            }
        }
    }

    fn note(&mut self, events: Vec<Event>) {
        self.events
            .extend(events.into_iter().map(|event| match event {
                Event::Ended { port, .. } => format!("ended {port}"),
                Event::Cut { client, why, .. } => format!("cut {client}: {why}"),
                Event::Transfer { ask, .. } => format!("transfer {}", ask.seq),
                Event::LogFull { .. } => "log full".to_owned(),
                Event::Captured { bytes, .. } => format!("captured {}", bytes.len()),
            }));
    }
}

fn set_nonblocking(file: &File) {
    sys::nonblocking::set_nonblocking(file).unwrap();
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn every_client_gets_what_is_written_while_it_is_attached_and_then_the_end() {
    let mut f = fixture();
    let early = f.attach(1, [false, true, true], true);
    let mut guest = f.output(PORT);
    guest.write_all(b"one ").unwrap();
    f.turn();
    let late = f.attach(2, [false, true, false], false);
    guest.write_all(b"two").unwrap();
    drop(guest);
    f.turn();
    assert_eq!(f.events, [format!("ended {PORT}")]);
    let process = f.process.clone();
    f.streams.finish(&f.poller, &process);
    let [out, err] = <[File; 2]>::try_from(early).unwrap();
    assert_eq!((text(out), text(err)), ("one two".into(), String::new()));
    assert_eq!(late.into_iter().map(text).collect::<String>(), "two");
}

#[test]
fn a_token_that_is_wrong_or_late_lets_nothing_through() {
    let mut f = fixture();
    let process = f.process.clone();
    for (sent, refused) in [(&[7u8, 7, 8][..], true), (&[7, 7], false)] {
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        let stream = Stream {
            port: PORT,
            token: TOKEN,
        };
        let role = Role::Output {
            process: process.clone(),
            is_stderr: false,
        };
        f.streams.open(&f.poller, &stream, role, ours).unwrap();
        File::from(theirs).write_all(sent).unwrap();
        let first = f.streams.guest_ready(&f.poller, PORT, Ready::READ);
        assert_eq!(first.is_err(), refused);
        if !refused {
            // It ends before its token: an end, and no data.
            let events = f.streams.guest_ready(&f.poller, PORT, Ready::READ).unwrap();
            assert!(matches!(events[..], [Event::Ended { .. }]));
        }
        f.streams.close(&f.poller, &[PORT]);
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_guest_up_and_loses_nothing() {
    let mut f = fixture();
    let ends = f.attach(1, [false, true, false], true);
    let mut guest = f.output(PORT);
    set_nonblocking(&guest);
    let mut sent = 0;
    // Until every buffer on the way is full.
    loop {
        match guest.write(&[b'x'; 10_000]) {
            Ok(len) => sent += len,
            Err(_) => {
                let before = sent;
                f.turn();
                match guest.write(&[b'x'; 10_000]) {
                    Ok(len) => sent += len,
                    Err(_) => break assert_eq!(before, sent),
                }
            }
        }
    }
    assert!(sent < 2 << 20, "{sent} bytes were taken from the guest");
    drop(guest);
    f.turn();
    assert!(f.events.is_empty());
    let mut reader = ends.into_iter().next().unwrap();
    set_nonblocking(&reader);
    let mut got = 0;
    let mut buffer = vec![0; 64 << 10];
    while got < sent {
        f.turn();
        if let Ok(len) = reader.read(&mut buffer) {
            got += len;
        }
    }
    f.turn();
    assert_eq!(f.events, [format!("ended {PORT}")]);
}

#[test]
fn only_a_client_that_attached_later_is_dropped_for_not_reading() {
    let mut f = fixture();
    let primary = f.attach(1, [false, true, false], true);
    let mut guest = f.output(PORT);
    let late = f.attach(2, [false, true, false], false);
    set_nonblocking(&guest);
    while guest.write(&[b'x'; 10_000]).is_ok() {
        f.turn();
    }
    f.turn();
    let far = Instant::now() + 2 * STALL_LIMIT;
    assert!(f.streams.deadline().is_some());
    let events = f.streams.drop_stalled(&f.poller, far).unwrap();
    f.note(events);
    assert_eq!(f.events, ["cut 2: it was not read for 10 seconds"]);
    assert_eq!(f.streams.sinks.len(), 1);
    assert!(f.streams.deadline().is_none());
    drop((primary, late));
}

#[test]
fn only_a_client_that_is_still_there_is_told_that_its_output_is_lost() {
    let mut f = fixture();
    drop(f.attach(1, [false, true, false], true));
    let failing = f.attach(2, [false, true, false], true);
    let mut guest = f.output(PORT);
    let (not_a_socket, _) = io::pipe().unwrap();
    for sink in f.streams.sinks.values_mut() {
        if sink.client == 2 {
            sink.socket = not_a_socket.try_clone().unwrap().into();
        }
    }
    guest.write_all(b"lost").unwrap();
    f.turn();
    let [told] = &f.events[..] else {
        panic!("{:?}", f.events)
    };
    assert!(
        told.starts_with("cut 2: cannot pass it to the client: Socket operation on non-socket")
    );
    assert!(f.streams.sinks.is_empty());
    drop(failing);
}

#[test]
fn input_waits_for_the_guest_and_ends_with_its_client() {
    let mut f = fixture();
    let mut ends = f.attach(1, [true, false, false], true);
    let mut stdin = ends.remove(0);
    stdin.write_all(b"typed early").unwrap();
    drop(stdin);
    f.turn();
    let process = f.process.clone();
    let guest = f.guest(PORT, Role::Input(process));
    f.turn();
    assert_eq!(text(guest), "typed early");
}

#[test]
fn an_input_that_nobody_reads_is_closed_for_its_clients() {
    let mut f = fixture();
    let mut ends = f.attach(1, [true, false, false], true);
    let process = f.process.clone();
    drop(f.guest(PORT, Role::Input(process)));
    let mut stdin = ends.remove(0);
    stdin.write_all(b"into the void").unwrap();
    f.turn();
    assert!(f.streams.sinks.is_empty());
}

#[test]
fn a_client_that_detaches_leaves_the_input_open() {
    let mut f = fixture();
    let mut ends = f.attach(1, [true, false, false], true);
    let process = f.process.clone();
    let mut guest = f.guest(PORT, Role::Input(process.clone()));
    f.streams.detach(&f.poller, 1, Some(&process)).unwrap();
    drop(ends.remove(0));
    f.turn();
    let mut second = f.attach(2, [true, false, false], false).remove(0);
    second.write_all(b"more").unwrap();
    f.turn();
    let mut bytes = [0; 4];
    guest.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"more");
}

#[test]
fn a_terminal_goes_both_ways_over_one_socket() {
    let mut f = fixture();
    let process = f.process.clone();
    let how = Attachment {
        streams: [true, true, false],
        terminal: true,
        primary: true,
        ends_input: false,
    };
    let (ends, pipes) = f.streams.attach(&f.poller, 1, &process, how).unwrap();
    assert_eq!((ends.len(), pipes), (1, [false; 3]));
    let mut client = File::from(ends.into_iter().next().unwrap());
    let mut guest = f.guest(PORT, Role::Terminal(process));
    client.write_all(b"ls\n").unwrap();
    guest.write_all(b"$ ").unwrap();
    f.turn();
    let mut bytes = [0; 3];
    guest.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ls\n");
    client.read_exact(&mut bytes[..2]).unwrap();
    assert_eq!(&bytes[..2], b"$ ");
}

#[test]
fn an_archive_is_its_clients_once_it_is_open() {
    let mut f = fixture();
    let ask = Ask { client: 1, seq: 9 };
    let _guest = f.guest(PORT, Role::Transfer(ask));
    assert_eq!(f.events, ["transfer 9"]);
    assert!(f.streams.guests.is_empty());
}

#[test]
fn what_is_in_the_sockets_when_the_machine_ends_is_read_whoever_is_full() {
    let mut f = fixture();
    let _ends = f.attach(1, [false, true, false], true);
    let mut guest = f.output(PORT);
    set_nonblocking(&guest);
    while guest.write(&[b'x'; 10_000]).is_ok() {
        f.turn();
    }
    drop(guest);
    let events = f.streams.drain(&f.poller).unwrap();
    assert!(matches!(events[..], [Event::Ended { port: PORT, .. }]));
    assert!(!f.streams.is_idle());
}
