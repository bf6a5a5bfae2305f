/// A fast 64-bit hash that detects changed data. It is the same on every machine. It is not cryptographic.
#[derive(Default)]
pub(crate) struct Hasher(u64);

impl Hasher {
    /// Adds bytes and their number.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.add(u64::from_le_bytes(word.try_into().expect("a word has eight bytes")));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.add(u64::from_le_bytes(last));
        self.add(bytes.len() as u64);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0
    }

    /// Each step is a bijection of the state, so that one changed word always changes the hash.
    fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 ^= self.0 >> 29;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&[u8]]) -> u64 {
        let mut hasher = Hasher::default();
        parts.iter().for_each(|part| hasher.write(part));
        hasher.finish()
    }

    #[test]
    fn every_byte_and_every_length_counts() {
        let bytes: Vec<u8> = (0..37).collect();
        let whole = hash(&[&bytes]);
        for i in 0..bytes.len() {
            let mut other = bytes.clone();
            other[i] ^= 1;
            assert_ne!(hash(&[&other]), whole);
        }
        assert_ne!(hash(&[&bytes, &[0]]), hash(&[&bytes, &[0, 0]]));
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"ab", b"c"]));
    }
}
