use proptest::prelude::*;

use super::*;

fn parsed(message: &[u8]) -> Query {
    Query::parse(message).unwrap()
}

/// The response code with which a message is refused.
fn refused(message: &[u8]) -> u16 {
    match Query::parse(message) {
        Err(Unserved::Answered(reply)) => {
            assert_eq!((reply.len(), u16_at(&reply, 0)), (12, u16_at(message, 0)));
            u16_at(&reply, 2) & 0xf
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_query_is_read_with_its_edns() {
    let plain = parsed(&query(7, "Web.Backend", wire::A));
    assert_eq!(plain.name, Name::parse("web.backend").unwrap());
    assert_eq!((plain.id, plain.kind, plain.class), (7, 1, 1));
    assert_eq!(plain.udp_limit(), 512);
    for (said, limit) in [(100, 512), (900, 900), (4096, 1232)] {
        let message = with_edns(query(7, "web", wire::A), said);
        assert_eq!(parsed(&message).udp_limit(), limit);
    }
}

#[test]
fn what_is_no_query_is_ignored_and_what_is_not_understood_refused() {
    let good = query(7, "web", wire::A);
    assert_eq!(Query::parse(&good[..11]), Err(Unserved::Ignored));
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(Query::parse(&answer), Err(Unserved::Ignored));
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(refused(&update), 4);
    for count in [0, 2] {
        let mut other = good.clone();
        other[5] = count;
        assert_eq!(refused(&other), 1);
    }
    assert_eq!(refused(&[&good[..], b"x"].concat()), 1);
    for end in 12..good.len() {
        assert_eq!(refused(&good[..end]), 1);
    }
    let edns = with_edns(good.clone(), 1232);
    for end in good.len()..edns.len() {
        assert_eq!(refused(&edns[..end]), 1);
    }
    // Two OPT records.
    let mut twice = [&edns[..], &edns[good.len()..]].concat();
    twice[11] = 2;
    assert_eq!(refused(&twice), 1);
    // 65535 records in no bytes.
    let mut many = good.clone();
    many[6..12].fill(0xff);
    assert_eq!(refused(&many), 1);
    // A name that points to itself, one of an unknown kind of label, one that is too long.
    for label in [0xc0, 0x40, 0x80] {
        let mut odd = good.clone();
        odd[12] = label;
        assert_eq!(refused(&odd), 1);
    }
    let long = query(7, &["a"; 127].join("."), wire::A);
    assert_eq!(parsed(&long).name.to_string().len(), 253);
    assert_eq!(refused(&query(7, &["a"; 128].join("."), wire::A)), 1);
    let padded = [&edns[..edns.len() - 2], &4100u16.to_be_bytes(), &[0; 4100]].concat();
    assert_eq!(refused(&padded), 1);
}

#[test]
fn an_answer_of_ours_repeats_the_question_and_ends_with_edns() {
    let message = with_edns(query(7, "WeB", wire::A), 4096);
    let records = [Record::Address(host(2)), Record::Address(host(3))];
    let reply = parsed(&message).answer(Rcode::NOERROR, true, &records, 512);
    // QR, AA, RD, RA.
    assert_eq!((u16_at(&reply, 0), u16_at(&reply, 2)), (7, 0x8580));
    let counts: Vec<_> = (0..4).map(|it| u16_at(&reply, 4 + 2 * it)).collect();
    assert_eq!(counts, [1, 2, 0, 1]);
    assert_eq!(reply[12..21], *b"\x03WeB\0\0\x01\0\x01");
    assert_eq!(
        reply[21..37],
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 213, 0, 2]
    );
    // DO comes back.
    assert_eq!(reply[53..], [0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0]);
}

#[test]
fn records_that_do_not_fit_are_left_out_and_said_to_be() {
    let records: Vec<_> = (0..100).map(|it| Record::Address(host(it))).collect();
    let query = parsed(&query(7, "web", wire::A));
    let cut = query.answer(Rcode::NOERROR, true, &records, 512);
    assert!(cut.len() <= 512);
    assert_eq!(u16_at(&cut, 2) & 0x0200, 0x0200);
    assert_eq!(u16_at(&cut, 6), 30);
    let whole = query.answer(Rcode::NOERROR, true, &records, MAX_MESSAGE);
    assert_eq!((u16_at(&whole, 2) & 0x0200, u16_at(&whole, 6)), (0, 100));
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let message = query(7, "example.org", wire::A);
    let query = parsed(&message);
    let good = answer_to(&message, 0, 40);
    assert_eq!(query.is_answered_by(7, &good), Some(Rcode::NOERROR));
    assert_eq!(query.is_answered_by(8, &good), None);
    assert_eq!(query.is_answered_by(7, &message), None);
    assert_eq!(query.is_answered_by(7, &good[..20]), None);
    let other = answer_to(&super::query(7, "example.com", wire::A), 0, 0);
    assert_eq!(query.is_answered_by(7, &other), None);
    let upper = answer_to(&super::query(7, "EXAMPLE.org", wire::A), 3, 0);
    assert_eq!(query.is_answered_by(7, &upper), Some(Rcode::NXDOMAIN));
    // A header alone is a refusal or nothing.
    let mut bare = answer_to(&message, 1, 0)[..12].to_vec();
    bare[5] = 0;
    assert_eq!(query.is_answered_by(7, &bare), Some(Rcode::FORMERR));
    for rcode in [0, 3] {
        bare[3] = 0x80 | rcode;
        assert_eq!(query.is_answered_by(7, &bare), None);
    }
}

/// Messages that begin like a query, so that something behind the header is read.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let tail = prop::collection::vec(any::<u8>(), 0..80);
    (prop::array::uniform4(0u8..3), tail).prop_map(|(counts, tail)| {
        let mut message = vec![0, 7, 1, 0];
        message.extend(counts.iter().flat_map(|&count| [0, count]));
        message.extend(tail);
        message
    })
}

proptest! {
    #[test]
    fn no_message_is_too_odd(message in messages(), limit in 0usize..600) {
        match Query::parse(&message) {
            Ok(query) => {
                let records = vec![Record::Address(host(2)); 50];
                let reply = query.answer(Rcode::NOERROR, true, &records, limit);
                // Without a record it is as long as it is.
                prop_assert!(reply.len() <= limit || u16_at(&reply, 6) == 0);
                let mut again = reply.clone();
                again[2] &= 0x7f;
                prop_assert!(Query::parse(&again).is_ok());
                prop_assert!(query.is_answered_by(query.id, &reply).is_some());
                let records = [Record::Pointer(query.name.clone())];
                query.answer(Rcode::NOERROR, true, &records, 4096);
                query.name.reversed_address();
                let _ = query.name.to_string();
            }
            Err(Unserved::Answered(reply)) => {
                prop_assert_eq!(reply.len(), 12);
                prop_assert_eq!(Query::parse(&reply), Err(Unserved::Ignored));
            }
            Err(Unserved::Ignored) => {}
        }
    }
}
