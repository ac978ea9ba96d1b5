/// Random numbers of a test's own (xorshift64), the same on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins with a number other than 0.
    pub fn new(seed: u64) -> Chance {
        assert_ne!(seed, 0, "a seed of 0 gives nothing but 0");
        Chance(seed)
    }

    /// Returns a number of 64 bits. The high bits are the better ones.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number of 32 bits.
    pub fn word(&mut self) -> u32 {
        (self.bits() >> 32) as u32
    }

    /// Returns a number from 0 to below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.bits() >> 11) % limit
    }
}
