//! The index: for each word the numbers of the files it is in, in rising order.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use super::Failure;

/// Word to files.
pub(crate) type Index = HashMap<String, Vec<u32>>;

/// The index of all files, made here and now.
pub(crate) fn of_files(files: &[PathBuf]) -> Result<Index, Failure> {
    let mut index = Index::new();
    for (number, file) in files.iter().enumerate() {
        let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        add_file(&mut index, number as u32, &text);
    }
    Ok(index)
}

/// Adds the words of one file. Files must come in rising order of their numbers.
pub(crate) fn add_file(index: &mut Index, number: u32, text: &[u8]) {
    for word in words(text) {
        match index.get_mut(word) {
            Some(files) if files.last() == Some(&number) => {}
            Some(files) => files.push(number),
            None => {
                index.insert(word.to_string(), vec![number]);
            }
        }
    }
}

/// What looks like an identifier: letters, digits and underscores, not beginning with a digit.
fn words(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .filter(|word| word.first().is_some_and(|first| !first.is_ascii_digit()))
        .filter_map(|word| str::from_utf8(word).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_counts_once() {
        let mut index = Index::new();
        add_file(&mut index, 0, b"let a = b1 + 2c; let a_2 = a;");
        add_file(&mut index, 3, "a caf\u{e9}".as_bytes());
        let mut items: Vec<_> = index.into_iter().collect();
        items.sort();
        let expected = [("a", vec![0, 3]), ("a_2", vec![0]), ("b1", vec![0]), ("caf", vec![3]), ("let", vec![0])];
        assert_eq!(items, expected.map(|(word, files)| (word.to_string(), files)));
    }
}
