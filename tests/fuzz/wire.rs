//! Values that Redis returns from a room's topic or log: each decodes to a publication or to an
//! error, and an accepted one decodes to the same when it is encoded again.

use switchboard::broker::redis::wire::{
    self, Format, TopicMessage, decode_body, decode_epoch, decode_message, decode_offset,
    encode_body, encode_ephemeral,
};
use switchboard::model::publication::Publication;

pub fn any_payload(input: &[u8]) {
    if let Ok(publication) = decode_body(input, Format::NEWEST) {
        let body = encode_body(&publication, Format::NEWEST);
        let again = decode_body(&body, Format::NEWEST);
        expect_same(&publication, &again.expect("ours"));
    }
    match decode_message(input, Format::NEWEST) {
        Ok(TopicMessage::Message {
            epoch,
            offset,
            publication,
        }) => {
            assert!((1..=wire::MAX_OFFSET).contains(&offset));
            let body = encode_body(&publication, Format::NEWEST);
            let mut message = format!("1 {epoch} {offset} ").into_bytes();
            message.extend(body);
            let Ok(TopicMessage::Message {
                epoch: again,
                offset: at,
                publication: same,
            }) = decode_message(&message, Format::NEWEST)
            else {
                panic!("not read again: {message:?}");
            };
            assert_eq!((epoch, offset), (again, at));
            expect_same(&publication, &same);
        }
        Ok(TopicMessage::Ephemeral(publication)) => {
            let message = encode_ephemeral(&publication, Format::NEWEST);
            let again = decode_message(&message, Format::NEWEST);
            assert!(matches!(again, Ok(TopicMessage::Ephemeral(_))), "{again:?}");
        }
        Ok(TopicMessage::Changed(change)) => {
            assert!(change.from < change.version && change.version <= wire::MAX_OFFSET);
            let message = format!(
                "1 here {} {} {} {} {} {}",
                change.from,
                change.version,
                change.user,
                change.was,
                change.connections,
                change.info.as_ref().map_or("", |info| info.get()),
            );
            let Ok(TopicMessage::Changed(again)) =
                decode_message(message.as_bytes(), Format::NEWEST)
            else {
                panic!("not read again: {message}");
            };
            assert_eq!(format!("{change:?}"), format!("{again:?}"));
        }
        Err(error) => assert!(error.to_string().len() < 100),
    }
    if let Some(offset) = decode_offset(input) {
        assert_eq!(offset.to_string().as_bytes(), input);
    }
    decode_epoch(input);
}

fn expect_same(one: &Publication, other: &Publication) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}
