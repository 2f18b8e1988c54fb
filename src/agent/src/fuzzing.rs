//! For `fuzz/` only: what a monitor sends.

use std::fs::File;
use std::io::Write;

use protocol::agent::Request;

use crate::connection::Connection;
use crate::containers::check_name;

/// The monitor's side of the connection, up to the point where requests are carried out.
pub fn requests(bytes: &[u8]) {
    let Ok((ours, theirs)) = sys::packet::stream_pair() else {
        return;
    };
    let Ok(mut connection) = Connection::new(ours) else {
        return;
    };
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
        loop {
            match connection.next() {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(message)) => look_at(message.request),
            }
        }
        assert!(theirs.is_some(), "a closed connection is noticed");
    }
}

fn look_at(request: Request) {
    match request {
        Request::Mount(mount) => {
            if check_name(&mount.container).is_ok() {
                let path = std::path::Path::new("/run").join(&mount.container);
                assert_eq!(path.parent(), Some(std::path::Path::new("/run")));
            }
        }
        Request::Create(create) => {
            let _ = container::Spec::from_json(create.spec.get().as_bytes());
        }
        _ => {}
    }
}
