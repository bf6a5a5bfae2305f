//! Protocol buffer messages: numbered fields of integers, floats, text and messages.
//!
//! ONNX needs a dozen messages. They are written here field by field, because the tensors' values must be streamed into
//! the file: libraries encode a message into memory as a whole.

/// How a field's value is encoded.
enum Wire {
    Varint = 0,
    Length = 2,
    Bits32 = 5,
}

/// An encoded message.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Adds an integer, or an enumeration's value.
    pub(super) fn int(mut self, field: u32, value: i64) -> Self {
        self.key(field, Wire::Varint);
        self.varint(value.cast_unsigned());
        self
    }

    /// Adds a float.
    pub(super) fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, Wire::Bits32);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Adds text or bytes.
    pub(super) fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.extend(Self::start(field, value.len() as u64).0);
        self.0.extend(value);
        self
    }

    /// Adds a message.
    pub(super) fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// The key and length of a field whose bytes are written separately.
    pub(super) fn start(field: u32, len: u64) -> Self {
        let mut message = Self::default();
        message.key(field, Wire::Length);
        message.varint(len);
        message
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn key(&mut self, field: u32, wire: Wire) {
        self.varint(u64::from(field << 3 | wire as u32));
    }

    /// Seven bits per byte, the lowest first. The highest bit of a byte says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    /// The examples of the documentation of protocol buffers, "Encoding".
    #[test]
    fn fields_are_encoded_as_documented() {
        assert_eq!(Message::default().int(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().int(1, -2).as_bytes()[1..], [0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(
            Message::default().bytes(2, "testing").as_bytes(),
            [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]
        );
        let inner = Message::default().int(1, 150);
        assert_eq!(Message::default().message(3, &inner).as_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().float(1, 1.0).as_bytes(), [0x0d, 0, 0, 0x80, 0x3f]);
    }
}
