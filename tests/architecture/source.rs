//! Reads Rust source as far as the architecture needs it: which paths a file names, on which line, and what of it is test code.

/// A source file below `src/`.
pub(crate) struct Source {
    /// Its path below `src/`, with '/': `seat/table.rs`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A path as code names it: `crate::{clock::Timestamp, id}` is two of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// The paths outside tests, in order.
    pub(crate) named: Vec<Named>,
    /// The paths inside tests, in order.
    pub(crate) named_in_tests: Vec<Named>,
    /// Modules that are declared for tests alone and live in files of their own.
    pub(crate) test_modules: Vec<String>,
    /// Lines that are no tests.
    pub(crate) code_lines: usize,
    /// Lines in all.
    pub(crate) lines: usize,
}

impl Source {
    /// The module that the file is: `["seat", "table"]`; none for a crate's root.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.name.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        match path {
            "lib" | "main" => Vec::new(),
            path => path.split('/').collect(),
        }
    }

    /// The file of the house that it belongs to: `seat` for `seat/table.rs`, `lib` for `lib.rs`.
    pub(crate) fn room(&self) -> &str {
        let end = self.name.find(['/', '.']).unwrap_or(self.name.len());
        &self.name[..end]
    }

    pub(crate) fn outline(&self) -> Outline {
        let tokens = tokens(&self.text);
        let mut outline = Outline {
            lines: self.text.lines().count(),
            ..Outline::default()
        };
        let (mut at, mut test_lines) = (0, 0);
        while at < tokens.len() {
            if let Some(end) = test_item(&tokens, at) {
                let item = &tokens[at..end];
                outline.test_modules.extend(declared_module(item));
                collect(item, &mut outline.named_in_tests);
                test_lines += item[item.len() - 1].line - item[0].line + 1;
                at = end;
            } else {
                at = path_or_token(&tokens, at, &mut outline.named);
            }
        }
        outline.code_lines = outline.lines - test_lines;
        outline
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_identifier(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Identifiers, `::`, and single characters; no comments, strings, characters, numbers' insides or white space.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let length = blank(rest);
        if length > 0 {
            line += rest[..length].iter().filter(|c| **c == '\n').count();
            at += length;
            continue;
        }
        let word = rest
            .iter()
            .take_while(|c| c.is_alphanumeric() || **c == '_')
            .count();
        let length = match rest {
            [':', ':', ..] => 2,
            _ => word.max(1),
        };
        let text = rest[..length].iter().collect();
        tokens.push(Token { text, line });
        at += length;
    }
    tokens
}

/// How many characters at the start are white space, a comment, a string or a character.
fn blank(rest: &[char]) -> usize {
    let until = |from: usize, end: &[char]| {
        let found = rest[from..].windows(end.len()).position(|w| w == end);
        found.map_or(rest.len(), |found| from + found + end.len())
    };
    match rest {
        [c, ..] if c.is_whitespace() => 1,
        ['/', '/', ..] => until(2, &['\n']) - 1,
        ['/', '*', ..] => until(2, &['*', '/']),
        ['b' | 'c', '"', ..] => 1 + quoted(&rest[1..], '"'),
        ['"', ..] => quoted(rest, '"'),
        ['r', '"' | '#', ..] | ['b' | 'c', 'r', '"' | '#', ..] => {
            let start = rest.iter().position(|c| *c == 'r').unwrap() + 1;
            let hashes = rest[start..].iter().take_while(|c| **c == '#').count();
            if rest.get(start + hashes) != Some(&'"') {
                return 0;
            }
            let mut end = vec!['"'];
            end.extend(std::iter::repeat_n('#', hashes));
            until(start + hashes + 1, &end)
        }
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted(rest, '\''),
        // A lifetime: its name is no path.
        ['\'', ..] => {
            1 + rest[1..]
                .iter()
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .count()
        }
        _ => 0,
    }
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn texts(tokens: &[Token]) -> impl Iterator<Item = &str> {
    tokens.iter().map(|token| token.text.as_str())
}

/// Behind the attribute that starts at `at`, if one does.
fn attribute(tokens: &[Token], at: usize) -> Option<usize> {
    let mut start = at + 1;
    if tokens.get(at)?.text != "#" {
        return None;
    }
    if tokens.get(start)?.text == "!" {
        start += 1;
    }
    (tokens.get(start)?.text == "[").then(|| balanced(tokens, start))
}

/// Behind the bracket that closes the one at `at`.
fn balanced(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (index, text) in texts(tokens).enumerate().skip(at) {
        match text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// Behind the test item that starts at `at` with `#[cfg(test)]` or the like, if one does.
fn test_item(tokens: &[Token], at: usize) -> Option<usize> {
    let mut end = attribute(tokens, at)?;
    let inside: Vec<&str> = texts(&tokens[at..end]).collect();
    if !inside.contains(&"cfg") || !inside.contains(&"test") || inside.contains(&"not") {
        return None;
    }
    if inside[1] == "!" {
        return Some(tokens.len());
    }
    while let Some(behind) = attribute(tokens, end) {
        end = behind;
    }
    while let Some(token) = tokens.get(end) {
        match token.text.as_str() {
            ";" => return Some(end + 1),
            "{" => return Some(balanced(tokens, end)),
            "(" | "[" => end = balanced(tokens, end),
            // A field, a variant or the like: its owner ends here.
            ")" | "]" | "}" => return Some(end),
            _ => end += 1,
        }
    }
    Some(end)
}

/// The name in an item `mod name;`.
fn declared_module(item: &[Token]) -> Option<String> {
    match item {
        [.., keyword, name, end] if keyword.text == "mod" && end.text == ";" => {
            Some(name.text.clone())
        }
        _ => None,
    }
}

fn collect(tokens: &[Token], named: &mut Vec<Named>) {
    let mut at = 0;
    while at < tokens.len() {
        at = path_or_token(tokens, at, named);
    }
}

fn is_text(token: Option<&Token>, text: &str) -> bool {
    token.is_some_and(|token| token.text == text)
}

/// Takes the path that starts at `at`, or steps over one token.
fn path_or_token(tokens: &[Token], at: usize, named: &mut Vec<Named>) -> usize {
    let is = |index: usize, text: &str| is_text(tokens.get(index), text);
    let token = &tokens[at];
    let extern_crate = token.text == "crate" && at > 0 && is(at - 1, "extern");
    if token.text == "use" || extern_crate {
        let start = if is(at + 1, "::") { at + 2 } else { at + 1 };
        if tokens.get(start).is_some_and(Token::is_identifier) || is(start, "{") {
            return tree(tokens, start, &[], named);
        }
    }
    let continued = at > 0 && (is(at - 1, "::") || is(at - 1, "."));
    // `::name` at the start of a path is a crate; behind a name or a generic argument `::` goes on with a path.
    let behind = |back: usize| at.checked_sub(back).map(|index| &tokens[index]);
    let generic = is_text(behind(2), ">") && !is_text(behind(3), "-");
    let absolute =
        is_text(behind(1), "::") && !behind(2).is_some_and(Token::is_identifier) && !generic;
    if token.is_identifier() && is(at + 1, "::") && (!continued || absolute) {
        return tree(tokens, at, &[], named);
    }
    at + 1
}

/// Takes a path or a use tree that starts at `at`, below `prefix`; answers where it ends.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], named: &mut Vec<Named>) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens[at].line;
    while let Some(token) = tokens.get(at) {
        if token.is_identifier() {
            segments.push(token.text.clone());
            at += 1;
        } else if token.text == "{" {
            let end = balanced(tokens, at);
            at += 1;
            while at < end - 1 {
                at = tree(tokens, at, &segments, named);
                // Up to behind the comma: `as name`, `*`, nothing that is named.
                at += 1 + texts(&tokens[at..end - 1])
                    .take_while(|text| *text != ",")
                    .count();
            }
            return end;
        } else {
            break;
        }
        if !is_text(tokens.get(at), "::") {
            break;
        }
        at += 1;
    }
    named.push(Named { segments, line });
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str) -> Outline {
        let name = "room/file.rs".to_owned();
        Source {
            name,
            text: text.to_owned(),
        }
        .outline()
    }

    fn paths(named: &[Named]) -> Vec<String> {
        named.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_and_inline_paths_are_found() {
        let text = "use a::{b::{C, D as E}, f::*, self};\nuse g;\nfn h() -> ::i::J { k::<L>(m::n()); o.p::<q::R>() }";
        let named = outline(text).named;
        let expected = [
            "a::b::C", "a::b::D", "a::f", "a::self", "g", "i::J", "k", "m::n", "q::R",
        ];
        assert_eq!(paths(&named), expected);
        assert_eq!(named[4].line, 2);
        assert_eq!(named[7].line, 3);
    }

    #[test]
    fn comments_and_strings_name_nothing() {
        let text = "// a::b\n/* c::d */ \"e::\\\"f::g\" r#\"h::\"i\"# b\"j::k\" '\\'' 'l' fn m<'n>(x: &'n str) {}\n/// o::p\nq::r();";
        let named = outline(text).named;
        assert_eq!((paths(&named), named[0].line), (vec!["q::r".to_owned()], 4));
    }

    #[test]
    fn tests_are_told_apart() {
        let text = "a::b();\n#[cfg(test)]\nmod deep;\n#[cfg(all(test, feature = \"x\"))]\n#[allow(dead_code)]\nmod tests {\n  use c::d;\n}\n#[cfg(not(test))]\ne::f();\n";
        let outline = outline(text);
        assert_eq!(paths(&outline.named), ["a::b", "e::f"]);
        assert_eq!(paths(&outline.named_in_tests), ["c::d"]);
        assert_eq!(outline.test_modules, ["deep"]);
        assert_eq!((outline.lines, outline.code_lines), (10, 3));
    }

    #[test]
    fn files_know_their_module() {
        let module = |name: &str| {
            let text = String::new();
            Source {
                name: name.to_owned(),
                text,
            }
            .module()
            .join("::")
        };
        assert_eq!(module("seat/table.rs"), "seat::table");
        assert_eq!(module("seat/mod.rs"), "seat");
        assert_eq!(module("id.rs"), "id");
        assert_eq!(module("lib.rs"), "");
    }
}
