//! Bitmap: a sparse set of numbers that finds the next one it lacks.

use alloc::collections::BTreeMap;

/// Numbers that one leaf speaks of, as a power of two: 64 words of 64 bits.
const LEAF_BITS: u32 = 12;

/// A set of numbers in layers. A leaf of layer 0 has a bit for each number, one of layer n + 1 a bit
/// for each leaf of layer n that is full: whatever is in it, the next number that is not is found with
/// two looks at each layer. Only leaves with a bit set exist, so that equal sets are equal maps.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Bitmap(BTreeMap<(u8, u128), Leaf>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Leaf {
    words: [u64; 64],
    /// Which words have a bit set, and which have all: one look says where to go on.
    used: u64,
    full: u64,
}

impl Bitmap {
    pub(crate) fn get(&self, number: u128) -> bool {
        let leaf = self.leaf(0, number >> LEAF_BITS);
        leaf.is_some_and(|leaf| leaf.get(number))
    }

    /// Puts a number in; whether it is new.
    pub(crate) fn set(&mut self, mut number: u128) -> bool {
        if self.get(number) {
            return false;
        }
        for layer in 0.. {
            let key = (layer, number >> LEAF_BITS);
            let leaf = self.0.entry(key).or_insert(Leaf::EMPTY);
            leaf.set(number);
            if leaf.full != u64::MAX {
                break;
            }
            number >>= LEAF_BITS;
        }
        true
    }

    /// Takes a number out, if it is in.
    pub(crate) fn clear(&mut self, mut number: u128) {
        for layer in 0.. {
            let key = (layer, number >> LEAF_BITS);
            let Some(leaf) = self.0.get_mut(&key) else {
                return;
            };
            let was_full = leaf.full == u64::MAX;
            leaf.clear(number);
            if leaf.used == 0 {
                self.0.remove(&key);
            }
            if !was_full {
                return;
            }
            number >>= LEAF_BITS;
        }
    }

    /// The first number from `from` on that is not in.
    pub(crate) fn first_clear(&self, from: u128) -> Option<u128> {
        self.first_clear_in(0, from)
    }

    fn first_clear_in(&self, layer: u8, from: u128) -> Option<u128> {
        let index = from >> LEAF_BITS;
        let Some(leaf) = self.leaf(layer, index) else {
            return Some(from);
        };
        if let Some(bit) = leaf.first_clear(from) {
            return Some((index << LEAF_BITS) | bit);
        }
        // One that is not full has a clear bit, and its first is the answer.
        let index = self.first_clear_in(layer + 1, index + 1)?;
        self.first_clear_in(layer, index.checked_mul(1 << LEAF_BITS)?)
    }

    fn leaf(&self, layer: u8, index: u128) -> Option<&Leaf> {
        #[cfg(test)]
        tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        self.0.get(&(layer, index))
    }

    /// How many leaves there are.
    #[cfg(test)]
    pub(crate) fn leaves(&self) -> usize {
        self.0.len()
    }
}

impl Leaf {
    const EMPTY: Self = Self {
        words: [0; 64],
        used: 0,
        full: 0,
    };

    fn get(&self, number: u128) -> bool {
        let (word, bit) = place(number);
        self.words[word] & bit != 0
    }

    fn set(&mut self, number: u128) {
        let (word, bit) = place(number);
        self.words[word] |= bit;
        self.used |= 1 << word;
        if self.words[word] == u64::MAX {
            self.full |= 1 << word;
        }
    }

    fn clear(&mut self, number: u128) {
        let (word, bit) = place(number);
        self.words[word] &= !bit;
        self.full &= !(1 << word);
        if self.words[word] == 0 {
            self.used &= !(1 << word);
        }
    }

    /// The first clear bit from that of `number` on: in its word, or in the first after it that is
    /// not full.
    fn first_clear(&self, number: u128) -> Option<u128> {
        let (word, bit) = place(number);
        let rest = !self.words[word] & !(bit - 1);
        if rest != 0 {
            return Some(bit_of(word, rest));
        }
        let later = !self.full & (u64::MAX << word) << 1;
        let word = later.trailing_zeros() as usize;
        (later != 0).then(|| bit_of(word, !self.words[word]))
    }
}

/// The word of a number in its leaf, and the bit of it in that.
fn place(number: u128) -> (usize, u64) {
    ((number >> 6) as usize % 64, 1 << (number % 64))
}

/// The first bit of a word that is set in `bits`, as it is counted in a leaf.
fn bit_of(word: usize, bits: u64) -> u128 {
    ((word as u128) << 6) | u128::from(bits.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use core::cell::Cell;
    use proptest::prelude::*;

    std::thread_local! {
        /// How many leaves were looked at.
        pub(super) static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// The first number that is not in, and how many leaves it took to find.
    fn search(bitmap: &Bitmap, from: u128) -> (Option<u128>, usize) {
        LOOKS.set(0);
        let found = bitmap.first_clear(from);
        (found, LOOKS.get())
    }

    /// All numbers below `leaves` leaves' worth.
    fn filled(leaves: u128) -> Bitmap {
        let full = Leaf {
            words: [u64::MAX; 64],
            used: u64::MAX,
            full: u64::MAX,
        };
        let mut bitmap = Bitmap::default();
        for index in 0..leaves {
            // Its last bit tells the layers above.
            let last = (index << LEAF_BITS) | 0xfff;
            bitmap.0.insert((0, index), full.clone());
            bitmap.clear(last);
            bitmap.set(last);
        }
        bitmap
    }

    #[test]
    fn a_search_looks_at_two_leaves_of_each_layer() {
        // As many as a /20, a /14, a /8 and more than that have.
        for (leaves, looks) in [(1, 3), (64, 3), (4096, 5), (5000, 5)] {
            let mut bitmap = filled(leaves);
            let end = leaves << LEAF_BITS;
            let (found, took) = search(&bitmap, 0);
            assert_eq!(found, Some(end));
            assert!(took <= looks, "{took} looks at {leaves} full leaves");
            // All but one that is as far away as can be, and all but every other.
            bitmap.clear(end - 1);
            let (found, took) = search(&bitmap, 0);
            assert_eq!(found, Some(end - 1));
            assert!(took <= looks, "{took} looks at all but one of {leaves}");
            for number in (0..end).step_by(8191) {
                bitmap.clear(number);
            }
            for from in [0, 1, end / 2, end - 2] {
                let (_, took) = search(&bitmap, from);
                assert!(took <= looks, "{took} looks at {leaves} from {from}");
            }
        }
    }

    #[test]
    fn what_was_full_and_is_empty_again_is_as_if_it_never_was() {
        let mut bitmap = filled(65);
        for number in 0..65 << LEAF_BITS {
            bitmap.clear(number);
        }
        assert_eq!(bitmap, Bitmap::default());
    }

    #[test]
    fn there_is_nothing_after_the_last_number() {
        let mut bitmap = Bitmap::default();
        for number in u128::MAX - 5000..=u128::MAX {
            bitmap.set(number);
        }
        assert_eq!(bitmap.first_clear(u128::MAX), None);
        assert_eq!(bitmap.first_clear(u128::MAX - 4000), None);
        bitmap.clear(u128::MAX);
        assert_eq!(bitmap.first_clear(u128::MAX - 4500), Some(u128::MAX));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(
            steps in prop::collection::vec((any::<bool>(), 0_u128..9000, 1_u128..700), 1..60), from in 0_u128..10_000,
        ) {
            let (mut bitmap, mut model) = (Bitmap::default(), BTreeSet::new());
            for (add, first, count) in steps {
                for number in first..first + count {
                    if add {
                        prop_assert_eq!(bitmap.set(number), model.insert(number));
                    } else {
                        bitmap.clear(number);
                        model.remove(&number);
                    }
                }
            }
            prop_assert_eq!(bitmap.first_clear(from), (from..).find(|number| !model.contains(number)));
            for number in model {
                prop_assert!(bitmap.get(number));
                bitmap.clear(number);
            }
            prop_assert_eq!(bitmap, Bitmap::default());
        }
    }
}
