//! A client of a Unix socket in a container: `caller SOCKET WHAT` prints what comes of it. `tests/tests/sockets.rs` has the
//! server.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

fn main() {
    let mut words = std::env::args().skip(1);
    let (path, what) = (words.next(), words.next());
    let (Some(path), Some(what)) = (path, what) else {
        eprintln!("caller SOCKET ask|pour|many|slam");
        std::process::exit(2);
    };
    match call(&path, &what) {
        Ok(outcome) => println!("{outcome}"),
        Err(error) => println!("{:?}", error.kind()),
    }
}

fn call(path: &str, what: &str) -> io::Result<String> {
    match what {
        // The server answers when it has read to the end.
        "ask" => ask(path, b"question"),
        "pour" => {
            let bytes: Vec<u8> = (0..8u32 << 20).map(|at| (at / 253) as u8).collect();
            let back = exchange(path, &bytes)?;
            let reversed = bytes.iter().rev().eq(&back);
            Ok(format!("{} bytes, reversed: {reversed}", back.len()))
        }
        "many" => {
            let callers: Vec<_> = (0..200)
                .map(|number| {
                    let path = path.to_owned();
                    std::thread::spawn(move || ask(&path, format!("caller {number}").as_bytes()))
                })
                .collect();
            let mut right = 0;
            for (number, caller) in callers.into_iter().enumerate() {
                let answer = caller.join().map_err(|_| io::ErrorKind::Other)??;
                let expected: String = format!("caller {number}").chars().rev().collect();
                right += usize::from(answer == expected);
            }
            Ok(format!("{right} answers"))
        }
        // Goes without a word.
        "slam" => UnixStream::connect(path).map(|_| "slammed".to_owned()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn ask(path: &str, question: &[u8]) -> io::Result<String> {
    String::from_utf8(exchange(path, question)?).map_err(io::Error::other)
}

/// Sends everything and ends that direction, then reads everything.
fn exchange(path: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
