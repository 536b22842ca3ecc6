//! Forms and query strings as pairs of texts, read strictly: what is not UTF-8 is an error, never another text.

use percent_encoding::percent_decode;

/// The pairs of an `application/x-www-form-urlencoded` text, in order. An error is the name of a pair that is not UTF-8,
/// at most 64 characters of it.
pub(super) fn pairs(encoded: &str) -> impl Iterator<Item = Result<(String, String), String>> {
    encoded.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (decode(name), decode(value)) {
            (Some(name), Some(value)) => Ok((name, value)),
            (known, _) => Err(known.as_deref().unwrap_or(name).chars().take(64).collect()),
        }
    })
}

fn decode(part: &str) -> Option<String> {
    let spaced = part.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_as_browsers_encode_them() {
        let read: Vec<_> = pairs("a=1+2&b=%C3%A4%26&c&&=d&e=f=g").map(Result::unwrap).collect();
        let expected = [("a", "1 2"), ("b", "ä&"), ("c", ""), ("", "d"), ("e", "f=g")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_not_utf8_is_an_error() {
        assert_eq!(pairs("a=%FF").next(), Some(Err("a".to_owned())));
        assert_eq!(pairs("%80=1").next(), Some(Err("%80".to_owned())));
    }
}
