//! Files that go in and out of containers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;

use protocol::agent::{Done, FailureKind, ProcessId, Request, Stdio, Writable};

use crate::NO_STREAMS;
use crate::host::{Host, exec, output_to, text};

/// What a tar archive holds, by name: type, mode, link target, content.
type Listing = BTreeMap<Vec<u8>, (u8, u32, Vec<u8>, Vec<u8>)>;

fn list(archive: &[u8]) -> Listing {
    let mut listing = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let header = entry.header();
        let (kind, mode) = (header.entry_type().as_byte(), header.mode().unwrap());
        listing.insert(entry.path_bytes().into_owned(), (kind, mode, link, content));
    }
    listing
}

fn archive(host: &mut Host, name: &str, path: &str) -> Vec<u8> {
    let out = host.listen();
    let seq = host.send(Request::Archive {
        container: name.into(),
        path: path.into(),
        follow: false,
        stream: out.stream(),
    });
    let mut bytes = Vec::new();
    out.accept().read_to_end(&mut bytes).unwrap();
    host.reply_of(seq).unwrap();
    bytes
}

fn extract(
    host: &mut Host,
    name: &str,
    path: &str,
    archive: &[u8],
) -> Result<Done, protocol::agent::Failure> {
    let input = host.listen();
    let seq = host.send(Request::Extract {
        container: name.into(),
        path: path.into(),
        owners: true,
        no_overwrite_kind: true,
        stream: input.stream(),
    });
    let mut stream = input.accept();
    // A refusal closes the stream.
    let _ = stream.write_all(archive);
    let _ = stream.shutdown(Shutdown::Write);
    host.reply_of(seq)
}

/// What a script prints in a running container.
fn run(host: &mut Host, name: &str, script: &str) -> String {
    let out = host.listen();
    host.ask(exec(name, "script", &["sh", "-c", script], output_to(&out)))
        .unwrap();
    let output = text(out.accept());
    host.exit_of_process(&ProcessId::exec(name, "script"));
    output
}

fn running(host: &mut Host, name: &str) {
    host.create(name, "exec sleep 1000", NO_STREAMS);
    host.start_container(name).unwrap();
}

fn entry(kind: tar::EntryType, mode: u32, len: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(12);
    header.set_gid(34);
    header.set_mtime(1_700_000_000);
    header.set_size(len as u64);
    header
}

#[test]
#[ignore = "needs root"]
fn a_tree_survives_the_way_in_and_out_whatever_its_names_are() {
    let mut host = Host::start();
    running(&mut host, "box");
    let mut builder = tar::Builder::new(Vec::new());
    let names: [&[u8]; 6] = [
        b"plain",
        b"with space\nand line",
        b"\xff\xfe not text",
        b"-rf",
        &[b'x'; 200],
        b".wh.not-a-whiteout",
    ];
    let dir = entry(tar::EntryType::Directory, 0o2755, 0);
    builder
        .append_data(&mut dir.clone(), "top/", &[][..])
        .unwrap();
    for name in names {
        let path = std::path::Path::new("top").join(std::ffi::OsStr::from_bytes(name));
        let mut header = entry(tar::EntryType::Regular, 0o4711, name.len());
        builder.append_data(&mut header, path, name).unwrap();
    }
    let mut link = entry(tar::EntryType::Symlink, 0o777, 0);
    builder
        .append_link(&mut link, "top/link", "/etc/passwd")
        .unwrap();
    let mut link = entry(tar::EntryType::Link, 0o4711, 0);
    builder
        .append_link(&mut link, "top/same", "top/plain")
        .unwrap();
    let sent = builder.into_inner().unwrap();
    extract(&mut host, "box", "/tmp", &sent).unwrap();
    let received = list(&archive(&mut host, "box", "/tmp/top"));
    for name in names {
        let path = [b"top/", name].concat();
        let (_, mode, link, content) = &received[&path];
        // Of two names of one file, whichever comes first is the file.
        if link.is_empty() {
            assert_eq!((*mode, &content[..]), (0o4711, name));
        }
    }
    assert_eq!(received[&b"top/"[..]].1, 0o2755);
    assert_eq!(received[&b"top/link"[..]].2, b"/etc/passwd");
    let links = [&b"top/plain"[..], b"top/same"].map(|name| received[name].0);
    assert!(links.contains(&b'0') && links.contains(&b'1'), "{links:?}");
    let seen = run(&mut host, "box", "stat -c '%u %g %Y %h' /tmp/top/plain");
    assert_eq!(seen, "12 34 1700000000 2\n");
}

#[test]
#[ignore = "needs root"]
fn nothing_is_read_or_written_outside_of_the_container() {
    let mut host = Host::start();
    running(&mut host, "box");
    let outside = host.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    let outside = outside.to_str().unwrap().to_owned();
    run(
        &mut host,
        "box",
        &format!(
            "ln -s {outside} /tmp/abs; ln -s ../../../../../..{outside} /tmp/rel; ln -s /proc/1/root /tmp/proc"
        ),
    );
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = entry(tar::EntryType::Regular, 0o644, 4);
    builder
        .append_data(&mut header, "evil", &b"evil"[..])
        .unwrap();
    let evil = builder.into_inner().unwrap();
    for path in ["/tmp/abs", "/tmp/rel"] {
        let failure = extract(&mut host, "box", path, &evil).unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound, "{failure:?}");
        let stat = host.ask(Request::Stat {
            container: "box".into(),
            path: format!("{path}/secret"),
            follow: true,
        });
        assert_eq!(stat.unwrap_err().kind, FailureKind::NotFound);
    }
    assert!(extract(&mut host, "box", "/tmp/proc/tmp", &evil).is_err());
    // A name with ".." and a link that the archive brings itself.
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = entry(tar::EntryType::Symlink, 0o777, 0);
    builder.append_link(&mut link, "way", &outside).unwrap();
    let mut header = entry(tar::EntryType::Regular, 0o644, 4);
    builder
        .append_data(&mut header, "way/evil", &b"evil"[..])
        .unwrap();
    assert!(extract(&mut host, "box", "/tmp", &builder.into_inner().unwrap()).is_err());
    let mut header = entry(tar::EntryType::Regular, 0o644, 4);
    header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(b"evil");
    bytes.resize(3 * 512, 0);
    let failure = extract(&mut host, "box", "/tmp", &bytes).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    let left: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[test]
#[ignore = "needs root"]
fn a_stopped_container_gives_and_takes_files() {
    let mut host = Host::start();
    host.mount("box").unwrap();
    let which = list(&archive(&mut host, "box", "/etc/which"));
    assert_eq!(which[&b"which"[..]].3, b"upper\n");
    let all = list(&archive(&mut host, "box", "/"));
    assert!(all.contains_key(&b"bin/busybox"[..]) && all.contains_key(&b"etc/"[..]));
    assert_eq!(all[&b"bin/sh"[..]].2, b"busybox");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = entry(tar::EntryType::Regular, 0o644, 3);
    builder
        .append_data(&mut header, "deep/er/file", &b"new"[..])
        .unwrap();
    let sent = builder.into_inner().unwrap();
    extract(&mut host, "box", "/etc", &sent).unwrap();
    let failure = extract(&mut host, "box", "/etc/which", &sent).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    let Ok(Done::Stat(stat)) = host.ask(Request::Stat {
        container: "box".into(),
        path: "/etc/deep/er/file".into(),
        follow: false,
    }) else {
        panic!("not there")
    };
    assert_eq!((&stat.name[..], stat.size_bytes), ("file", 3));
    assert_eq!(stat.modified_ns, 1_700_000_000_000_000_000);
}

#[test]
#[ignore = "needs root"]
fn a_link_is_looked_at_or_through() {
    let mut host = Host::start();
    host.mount("box").unwrap();
    let mut stat = |path: &str, follow| match host.ask(Request::Stat {
        container: "box".into(),
        path: path.into(),
        follow,
    }) {
        Ok(Done::Stat(stat)) => stat,
        other => panic!("{other:?}"),
    };
    let link = stat("/bin/sh", false);
    assert_eq!(
        (&link.name[..], link.link_target.as_deref()),
        ("sh", Some("busybox"))
    );
    let target = stat("/bin/sh", true);
    assert_eq!((&target.name[..], target.link_target), ("busybox", None));
    assert_eq!(stat("/", true).name, "/");
}

#[test]
#[ignore = "needs root"]
fn changes_against_the_image_are_told_as_a_list_and_as_a_layer() {
    let mut host = Host::start();
    running(&mut host, "box");
    run(
        &mut host,
        "box",
        "echo new > /etc/new; rm /etc/which; rm -r /deleted; rm -r /remade; mkdir /remade; echo x > /remade/x; \
         ln /etc/new /etc/same; mkfifo /etc/fifo; chmod 700 /tmp",
    );
    let out = host.listen();
    let seq = host.send(Request::Changes {
        container: "box".into(),
        stream: out.stream(),
    });
    let listed = text(out.accept());
    host.reply_of(seq).unwrap();
    let mut listed: Vec<&str> = listed.split_terminator('\0').collect();
    listed.sort_unstable();
    assert_eq!(
        listed,
        [
            "A /etc/fifo",
            "A /etc/new",
            "A /etc/same",
            "A /remade/x",
            "C /etc",
            "C /remade",
            "C /tmp",
            "D /deleted",
            "D /etc/which",
            "D /remade/old",
        ]
    );
    let out = host.listen();
    let seq = host.send(Request::Diff {
        container: "box".into(),
        stream: out.stream(),
    });
    let mut layer = Vec::new();
    out.accept().read_to_end(&mut layer).unwrap();
    host.reply_of(seq).unwrap();
    let layer = list(&layer);
    let names: Vec<&[u8]> = layer.keys().map(|name| &name[..]).collect();
    assert_eq!(
        names,
        [
            &b".wh.deleted"[..],
            b"etc/",
            b"etc/.wh.which",
            b"etc/fifo",
            b"etc/new",
            b"etc/same",
            b"remade/",
            b"remade/.wh..wh..opq",
            b"remade/x",
            b"tmp/",
        ]
    );
    assert_eq!(
        (layer[&b"etc/fifo"[..]].0, layer[&b"tmp/"[..]].1),
        (b'6', 0o700)
    );
}

#[test]
#[ignore = "needs root"]
fn a_container_without_changes_has_none() {
    let mut host = Host::start();
    host.mount_with("box", Writable::Tmpfs).unwrap();
    let mut request = crate::host::create("box", &["true"], NO_STREAMS);
    request.etc.hosts = Some("ours\n".into());
    request.etc.resolv_conf = Some("ours\n".into());
    host.ask(Request::Create(Box::new(request))).unwrap();
    host.start_container("box").unwrap();
    host.exit_of("box");
    let out = host.listen();
    let seq = host.send(Request::Changes {
        container: "box".into(),
        stream: out.stream(),
    });
    assert_eq!(text(out.accept()), "");
    host.reply_of(seq).unwrap();
    let _: Stdio = NO_STREAMS;
}
