//! Follows the frames in a stream of bytes (RFC 6455 section 5.2) without keeping any of it, to
//! count the frames of the current message: the codec behind it bounds a message's bytes,
//! but empty frames have none. The codec detects protocol violations, not this file.

/// The state of the stream: the remaining bytes of the current frame, and the number of frames of
/// its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragments {
    /// Remaining bytes of the current frame: of its length field, or, when that is read, of its
    /// mask and payload. The codec refuses a frame longer than this can hold before its end.
    left: u32,
    /// Frames of the current message; 0 between two messages.
    count: u32,
    step: FrameStep,
    /// The current frame's first byte: FIN and opcode.
    first: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FrameStep {
    #[default]
    First,
    /// The byte with the mask bit and the short length.
    Second,
    /// So many bytes of the long length are missing; the part already read is in `left`.
    Length(u8, Masked),
    Payload,
}

type Masked = bool;

/// The result of following some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A message has ended, or a control frame between two.
    pub ended: bool,
    /// The largest number of frames of a message so far.
    pub most: u32,
}

const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const MASK_BYTES: u32 = 4;

impl Fragments {
    /// Follows the next bytes of the stream.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while let Some((byte, rest)) = bytes.split_first() {
            match self.step {
                FrameStep::Payload => {
                    let skipped = bytes.len().min(self.left as usize);
                    self.left -= skipped as u32;
                    bytes = &bytes[skipped..];
                }
                FrameStep::First => {
                    self.first = *byte;
                    self.step = FrameStep::Second;
                    if byte & CONTROL == 0 {
                        self.count = self.count.saturating_add(1);
                        seen.most = seen.most.max(self.count);
                    }
                    bytes = rest;
                }
                FrameStep::Second => {
                    let masked = byte & MASKED != 0;
                    match byte & !MASKED {
                        126 => self.expect_length(2, masked),
                        127 => self.expect_length(8, masked),
                        length => self.expect_payload(u32::from(length), masked),
                    }
                    bytes = rest;
                }
                FrameStep::Length(more, masked) => {
                    self.left = self.left.saturating_mul(256).saturating_add((*byte).into());
                    match more {
                        1 => self.expect_payload(self.left, masked),
                        _ => self.step = FrameStep::Length(more - 1, masked),
                    }
                    bytes = rest;
                }
            }
            if self.step == FrameStep::Payload && self.left == 0 {
                self.step = FrameStep::First;
                seen.ended |= self.end_frame();
            }
        }
        seen
    }

    /// Whether a message or a control frame has begun and not ended.
    pub(crate) fn is_under_way(&self) -> bool {
        self.count > 0 || self.step != FrameStep::First
    }

    fn expect_length(&mut self, bytes: u8, masked: Masked) {
        self.left = 0;
        self.step = FrameStep::Length(bytes, masked);
    }

    fn expect_payload(&mut self, length: u32, masked: Masked) {
        let mask = if masked { MASK_BYTES } else { 0 };
        self.left = length.saturating_add(mask);
        self.step = FrameStep::Payload;
    }

    /// Whether more than a frame ends: control frames may come between those of a message.
    fn end_frame(&mut self) -> bool {
        let is_control = self.first & CONTROL != 0;
        if !is_control && self.first & FIN != 0 {
            self.count = 0;
        }
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(MASKED | length as u8),
            126..65_536 => {
                bytes.push(MASKED | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(MASKED | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        // Neither mask nor payload may pass for a header.
        bytes.extend(vec![0x01; 4 + length]);
        bytes
    }

    #[test]
    fn frames_are_counted_however_the_bytes_are_cut() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let (mut stream, mut counts, mut ends) = (Vec::new(), Vec::new(), 0);
            for _ in 0..random.u32(1..5) {
                let frames = random.u32(1..6);
                for n in 1..=frames {
                    let opcode = u8::from(n == 1);
                    let fin = if n == frames { FIN } else { 0 };
                    let length = [0, 1, 125, 126, 300, 65_536][random.usize(0..6)];
                    stream.extend(frame(fin | opcode, length));
                    if random.bool() {
                        stream.extend(frame(FIN | 0x9, 3));
                        ends += u32::from(n == frames);
                    }
                }
                counts.push(frames);
                ends += 1;
            }
            let mut fragments = Fragments::default();
            let (mut most, mut ended, mut rest) = (0, false, &stream[..]);
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(random.usize(1..=rest.len().min(2000)));
                let seen = fragments.follow(piece);
                most = most.max(seen.most);
                ended |= seen.ended;
                rest = more;
            }
            assert_eq!(most, *counts.iter().max().unwrap());
            assert!(ended && ends > 0 && !fragments.is_under_way());
        }
    }

    #[test]
    fn messages_are_under_way_from_first_to_last_byte() {
        let mut fragments = Fragments::default();
        let message = [frame(0x1, 3), frame(FIN | 0x9, 2), frame(FIN, 1)].concat();
        for byte in &message[..message.len() - 1] {
            assert!(!fragments.follow(&[*byte]).ended);
            assert!(fragments.is_under_way());
        }
        assert!(fragments.follow(&message[message.len() - 1..]).ended);
        assert!(!fragments.is_under_way());
        // A control frame between two messages begins and ends too.
        assert!(!fragments.follow(&[FIN | 0x9]).ended);
        assert!(fragments.is_under_way());
        assert!(fragments.follow(&[MASKED, 1, 1, 1, 1]).ended);
    }

    #[test]
    fn any_frame_length_is_followed() {
        for length in [u64::MAX, 1 << 62, u64::from(u32::MAX), 1 << 32] {
            let mut fragments = Fragments::default();
            let mut header = vec![FIN | 0x1, MASKED | 127];
            header.extend(length.to_be_bytes());
            fragments.follow(&header);
            for _ in 0..4 {
                fragments.follow(&[0; 1000]);
            }
            assert!(fragments.is_under_way());
        }
    }

    #[test]
    fn state_is_small_because_every_connection_has_one() {
        assert!(size_of::<Fragments>() <= 12, "{}", size_of::<Fragments>());
    }
}
