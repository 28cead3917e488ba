//! The form of the prose: sections of paragraphs, verbatim lines and entries.
//!
//! A line in capitals that is one of [`HEADINGS`] begins a section. Lines that stand together are a paragraph; lines
//! indented by four spaces are verbatim. A line before one that begins with `: ` is the term of an entry, and each
//! such line begins a paragraph about it. `@name` on a line of its own stands for a part of `shared.txt`. What is
//! between backticks is literal; `_WORD_` stands for something.

/// The headings, in the order of man-pages(7).
const HEADINGS: &[&str] =
    &["SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "NOTES", "EXAMPLES", "SEE ALSO"];

const SHARED: &str = include_str!("texts/shared.txt");

/// A heading and what is below it.
pub struct Section {
    /// In capitals.
    pub heading: &'static str,
    /// Its parts.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Clone)]
pub enum Block {
    /// Words on one line.
    Paragraph(String),
    /// Lines as they are.
    Verbatim(Vec<&'static str>),
    /// A term, and paragraphs about it.
    Entry(&'static str, Vec<String>),
}

impl Block {
    /// The lines of a verbatim block.
    pub fn into_lines(self) -> Vec<&'static str> {
        if let Block::Verbatim(lines) = self { lines } else { Vec::new() }
    }
}

/// Takes a text apart.
pub fn sections(text: &'static str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut chunk = Vec::new();
    for line in with_shared(text).into_iter().chain([""]) {
        let heading = HEADINGS.iter().find(|heading| **heading == line);
        if !line.is_empty() && heading.is_none() {
            chunk.push(line);
            continue;
        }
        if let Some(section) = sections.last_mut() {
            section.blocks.extend(blocks(&chunk));
        }
        chunk.clear();
        sections.extend(heading.map(|heading| Section { heading, blocks: Vec::new() }));
    }
    sections
}

/// The paragraphs of the entry of that term.
pub fn entry<'a>(blocks: &'a [Block], wanted: &str) -> Option<&'a [Block]> {
    blocks.iter().find_map(|block| match block {
        Block::Entry(term, _) if *term == wanted => Some(std::slice::from_ref(block)),
        _ => None,
    })
}

/// The lines, with those of shared parts in place of their names.
fn with_shared(text: &'static str) -> Vec<&'static str> {
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.starts_with('@') {
            true => lines.extend(
                SHARED.lines().skip_while(|other| *other != line).skip(1).take_while(|other| !other.starts_with('@')),
            ),
            false => lines.push(line),
        }
    }
    lines
}

/// The blocks of lines that stand together: there may be several entries.
fn blocks(lines: &[&'static str]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut rest = lines;
    while let Some((first, behind)) = rest.split_first() {
        if behind.first().is_some_and(|line| line.starts_with(": ")) {
            let end = 1 + behind.iter().take_while(|line| line.starts_with(": ") || line.starts_with("  ")).count();
            blocks.push(Block::Entry(first, paragraphs(&rest[1..end])));
            rest = &rest[end..];
        } else if first.starts_with("    ") {
            let end = rest.iter().take_while(|line| line.starts_with("    ")).count();
            blocks.push(Block::Verbatim(rest[..end].iter().map(|line| &line[4..]).collect()));
            rest = &rest[end..];
        } else {
            blocks.push(Block::Paragraph(rest.join(" ")));
            rest = &[];
        }
    }
    blocks
}

/// The paragraphs of an entry: each begins with `: `.
fn paragraphs(lines: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in lines {
        match (line.strip_prefix(": "), found.last_mut()) {
            (None, Some(paragraph)) => *paragraph = format!("{paragraph} {}", line.trim_start()),
            (text, _) => found.push(text.unwrap_or(line).to_owned()),
        }
    }
    found
}

/// A piece of a paragraph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span<'a> {
    /// Words.
    Plain(&'a str),
    /// What is typed or found as it is.
    Literal(&'a str),
    /// What stands for something.
    Placeholder(&'a str),
}

/// Takes the marks out of a paragraph.
pub fn spans(text: &str) -> Vec<Span<'_>> {
    let mut spans = Vec::new();
    for (index, piece) in text.split('`').enumerate() {
        if index % 2 == 1 {
            spans.push(Span::Literal(piece));
            continue;
        }
        let mut rest = piece;
        while let Some((before, word, behind)) = placeholder(rest) {
            spans.extend([Span::Plain(before), Span::Placeholder(word)]);
            rest = behind;
        }
        spans.push(Span::Plain(rest));
    }
    spans.retain(|span| !matches!(span, Span::Plain("")));
    spans
}

/// The first `_WORD_`, and what is before and behind it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    for (start, _) in text.match_indices('_') {
        let behind = &text[start + 1..];
        let word = behind.split('_').next().filter(|word| behind.len() > word.len())?;
        let capitals = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if capitals && !text[..start].ends_with(|letter: char| letter.is_alphanumeric()) {
            return Some((&text[..start], word, &behind[word.len() + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_out() {
        let text = "give `--root` and a _DIR_ to NOTIFY_SOCKET_X";
        let expected = [
            Span::Plain("give "),
            Span::Literal("--root"),
            Span::Plain(" and a "),
            Span::Placeholder("DIR"),
            Span::Plain(" to NOTIFY_SOCKET_X"),
        ];
        assert_eq!(spans(text), expected);
    }

    #[test]
    fn a_text_is_sections_of_blocks() {
        let sections =
            sections("FILES\n/a\n: one\n  line\n: two\n/b\n: three\n\nEXAMPLES\nwords\nand more:\n\n    $ x\n");
        assert_eq!(sections.iter().map(|section| section.heading).collect::<Vec<_>>(), ["FILES", "EXAMPLES"]);
        assert!(
            matches!(&sections[0].blocks[..], [Block::Entry("/a", both), Block::Entry("/b", _)] if *both == ["one line", "two"])
        );
        assert!(
            matches!(&sections[1].blocks[..], [Block::Paragraph(text), Block::Verbatim(lines)] if text == "words and more:" && *lines == ["$ x"])
        );
    }
}
