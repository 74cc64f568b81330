//! Merkle trees as in RFC 9162 §2.1, with SHA-256.

use crate::crypto::sha256;

/// Longest path of a tree with 2^16 leaves.
pub const PATH_LEN_MAX: usize = 16;
/// Leaves of a tree, at the most.
pub const LEAVES_MAX: usize = 1 << PATH_LEN_MAX;

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Returns the hash of a leaf whose data is the concatenation of `parts`.
#[must_use]
pub fn leaf_hash([first, second, third]: [&[u8]; 3]) -> Hash {
    sha256(&[&[LEAF], first, second, third])
}

/// Returns the root over `leaves`, which is used up as working space; `None` if there are none.
#[must_use]
pub fn root(leaves: &mut Vec<Hash>) -> Option<Hash> {
    while leaves.len() > 1 {
        reduce(leaves);
    }
    leaves.pop()
}

/// Returns the hashes beside the way from the leaf `index` to the root (RFC 9162 §2.1.3.1), lowest first; `None` if there is no
/// such leaf. `leaves` is used up as working space.
#[must_use]
pub fn inclusion_path(leaves: &mut Vec<Hash>, mut index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::with_capacity(PATH_LEN_MAX);
    while leaves.len() > 1 {
        // The last hash of a level with an odd number of them goes up as it is.
        path.extend(leaves.get(index ^ 1));
        reduce(leaves);
        index >>= 1;
    }
    Some(path)
}

/// Returns the root that `leaf` at `index` of a tree with `size` leaves leads to along `path` (RFC 9162 §2.1.3.2); `None` if the
/// path is too long or too short for that place.
#[must_use]
pub fn root_from_path(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut place, mut last) = (index, size.checked_sub(1)?);
    let mut hash = leaf;
    for beside in path {
        if last == 0 {
            return None;
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(beside, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Replaces a level of the tree by the one above.
fn reduce(level: &mut Vec<Hash>) {
    let len = level.len();
    for above in 0..len.div_ceil(2) {
        let below = above.saturating_mul(2);
        let hash = match (level.get(below), level.get(below.saturating_add(1))) {
            (Some(left), Some(right)) => node_hash(left, right),
            (Some(alone), None) => *alone,
            (None, _) => break,
        };
        if let Some(place) = level.get_mut(above) {
            *place = hash;
        }
    }
    level.truncate(len.div_ceil(2));
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[NODE], left, right])
}

/// In front of the data of a leaf, so that no node can pass for one (RFC 9162 §2.1.1).
const LEAF: u8 = 0;
/// In front of two hashes.
const NODE: u8 = 1;

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    /// The data of the leaves in the test vectors of the Certificate Transparency implementations.
    const VECTOR_LEAVES: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    /// Their roots over the first 1, 2, … 8 leaves.
    const VECTOR_ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn vector_leaves(count: usize) -> Vec<Hash> {
        let data = VECTOR_LEAVES.iter().take(count);
        data.map(|text| leaf_hash([&HEXLOWER.decode(text.as_bytes()).unwrap(), &[], &[]]))
            .collect()
    }

    #[test]
    fn roots_are_those_of_the_published_vectors() {
        for (count, want) in (1..).zip(VECTOR_ROOTS) {
            let root = root(&mut vector_leaves(count)).unwrap();
            assert_eq!(HEXLOWER.encode(&root), want, "{count} leaves");
        }
        assert_eq!(root(&mut Vec::new()), None);
    }

    #[test]
    fn a_path_is_that_of_the_published_vector() {
        // Leaf 5 (counted from 0) of 8.
        let path = inclusion_path(&mut vector_leaves(8), 5).unwrap();
        let want = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(
            path.iter().map(|hash| HEXLOWER.encode(hash)).collect::<Vec<_>>(),
            want
        );
    }

    #[test]
    fn every_leaf_of_every_small_tree_leads_to_its_root_and_nowhere_else() {
        for size in 1..70_usize {
            let leaves: Vec<Hash> = (0..size)
                .map(|leaf| leaf_hash([&leaf.to_be_bytes(), &[], &[]]))
                .collect();
            let want = root(&mut leaves.clone()).unwrap();
            for (index, leaf) in leaves.iter().enumerate() {
                let path = inclusion_path(&mut leaves.clone(), index).unwrap();
                assert_eq!(
                    root_from_path(*leaf, index as u64, size as u64, &path),
                    Some(want)
                );
                let elsewhere = (0..size).filter(|other| *other != index);
                for other in elsewhere {
                    assert_ne!(
                        root_from_path(*leaf, other as u64, size as u64, &path),
                        Some(want),
                        "{index} passed for {other} of {size}"
                    );
                }
                let mut longer = path.clone();
                longer.push([0; 32]);
                assert_eq!(root_from_path(*leaf, index as u64, size as u64, &longer), None);
                if let Some((_, shorter)) = path.split_last() {
                    assert_eq!(root_from_path(*leaf, index as u64, size as u64, shorter), None);
                }
            }
            assert_eq!(inclusion_path(&mut leaves.clone(), size), None);
        }
    }

    proptest! {
        #[test]
        fn a_changed_bit_changes_the_root(
            size in 1_usize..300, index: prop::sample::Index, bit in 0_usize..256, at: prop::sample::Index,
        ) {
            let leaves: Vec<Hash> = (0..size).map(|leaf| leaf_hash([&leaf.to_be_bytes(), &[], &[]])).collect();
            let want = root(&mut leaves.clone());
            let index = index.index(size);
            let mut path = inclusion_path(&mut leaves.clone(), index).unwrap();
            let mut leaf = leaves[index];
            let place = at.index(path.len() + 1);
            let hash = path.get_mut(place).unwrap_or(&mut leaf);
            hash[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(root_from_path(leaf, index as u64, size as u64, &path), want);
        }
    }
}
