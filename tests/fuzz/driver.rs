//! Runs the targets. In an ordinary build: the corpus, then mutations of it from a fixed seed. A
//! failure prints the seed and the input. In a build for fuzzing: libFuzzer, through bolero.

#[cfg(not(fuzzing))]
pub use plain::feed;

/// Makes a test of each `name: function, inputs;`.
macro_rules! targets {
    ($( $(#[$about:meta])* $name:ident: $target:path, $inputs:literal; )+) => {
        mod target {
            use super::*;

            $(
                #[test]
                fn $name() {
                    #[cfg(fuzzing)]
                    bolero::check!(name = stringify!($name))
                        .for_each(|bytes: &[u8]| $target(bytes));
                    #[cfg(not(fuzzing))]
                    driver::feed(stringify!($name), $target, $inputs);
                }
            )+
        }
    };
}
pub(crate) use targets;

#[cfg(not(fuzzing))]
mod plain {
    use std::fs;
    use std::path::Path;

    use fastrand::Rng;

    /// The seed of the mutations, unless `FUZZ_SEED` is set.
    const SEED: u64 = 6455;

    /// Longer inputs find little that shorter ones do not, and are slower.
    const LONGEST: usize = 4096;

    /// Bytes with a meaning in one of the formats.
    const WORDS: &[&[u8]] = &[
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\"",
        b"\\u0000",
        b"\\ud800",
        b"{",
        b"[",
        b"null",
        b"18446744073709551615",
        b"9007199254740993",
        b"-1",
        b"1e999",
        b"%00",
        b"%2e",
        b"\xff",
        b"\xc0\xae",
        b"\xe2\x80\xa8",
        b"*",
        b"\x80",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"$-1\r\n",
        b"@",
    ];

    /// Prints the input when the target panics.
    struct Shown<'a> {
        name: &'a str,
        seed: u64,
        input: &'a [u8],
    }

    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let (name, input) = (self.name, self.input.escape_ascii());
                eprintln!("FUZZ_SEED={} target {name} failed at: {input}", self.seed);
            }
        }
    }

    /// Runs a target on its corpus and on `inputs` mutations of it.
    pub fn feed(name: &str, target: fn(&[u8]), inputs: usize) {
        let seed = std::env::var("FUZZ_SEED").ok();
        let seed = seed.map_or(SEED, |text| text.parse().expect("FUZZ_SEED is a number"));
        let mut rng = Rng::with_seed(seed);
        let corpus = corpus(name);
        let try_one = |input: &[u8]| {
            let _shown = Shown { name, seed, input };
            target(input);
        };
        for input in &corpus {
            try_one(input);
        }
        println!("target {name}, FUZZ_SEED={seed}: {inputs} inputs");
        for _ in 0..inputs {
            try_one(&mutation(&mut rng, &corpus));
        }
    }

    /// Sorted by name, so that a seed gives the same inputs on every machine.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/corpus")
            .join(name);
        let entries = fs::read_dir(&directory).expect("each target has a corpus");
        let mut paths: Vec<_> = entries
            .map(|entry| entry.expect("it is readable").path())
            .collect();
        paths.sort();
        let inputs: Vec<Vec<u8>> = paths
            .iter()
            .map(|path| fs::read(path).expect("it is readable"))
            .collect();
        assert!(!inputs.is_empty(), "{} is empty", directory.display());
        inputs
    }

    /// An input of the corpus with one to eight changes.
    fn mutation(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = rng.choice(corpus).cloned().unwrap_or_default();
        for _ in 0..rng.usize(1..=8) {
            let at = rng.usize(0..=input.len());
            let end = rng.usize(at..=input.len());
            match rng.u8(0..7) {
                0 if at < input.len() => input[at] ^= 1 << rng.u8(0..8),
                1 if at < input.len() => input[at] = rng.u8(..),
                2 => drop(input.drain(at..end)),
                3 => drop(input.splice(at..at, input[at..end].to_vec())),
                4 => {
                    let token = rng.choice(WORDS).copied().unwrap_or_default();
                    input.splice(at..at, token.iter().copied());
                }
                5 => {
                    let other = rng.choice(corpus).map_or(&[][..], Vec::as_slice);
                    let from = rng.usize(0..=other.len());
                    input.splice(at..end, other[from..].iter().copied());
                }
                _ => input.insert(at, rng.u8(..)),
            }
        }
        input.truncate(LONGEST);
        input
    }
}
