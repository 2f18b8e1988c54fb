use proptest::prelude::*;

use super::*;

#[test]
fn no_more_is_wanted_than_the_message_that_has_begun() {
    let mut incoming = Incoming::new(300);
    assert_eq!(incoming.wanted(), Ok(2));
    assert_eq!(incoming.take(&[1]), Ok(None));
    assert_eq!(incoming.wanted(), Ok(1));
    assert_eq!(incoming.take(&[44]), Ok(None));
    assert_eq!(incoming.wanted(), Ok(300));
    assert_eq!(incoming.take(&[7; 299]), Ok(None));
    assert_eq!(incoming.take(&[7]), Ok(Some(vec![7; 300])));
    assert_eq!(incoming.wanted(), Ok(2));
    assert_eq!(incoming.take(&[1, 45]), Err(TooLong));
}

#[test]
fn a_message_without_a_length_is_not_framed() {
    assert_eq!(framed(b"ab"), Some(b"\0\x02ab".to_vec()));
    assert_eq!(framed(&vec![0; MAX_MESSAGE + 1]), None);
}

proptest! {
    #[test]
    fn messages_arrive_whole_however_they_are_cut(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        cuts in prop::collection::vec(1usize..9, 1..9),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|it| framed(it).unwrap()).collect();
        let mut incoming = Incoming::new(40);
        let (mut rest, mut arrived) = (&stream[..], Vec::new());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let len = incoming.wanted().unwrap().min(*cut).min(rest.len());
            let (bytes, after) = rest.split_at(len);
            rest = after;
            arrived.extend(incoming.take(bytes).unwrap());
        }
        prop_assert_eq!(arrived, messages);
    }
}
