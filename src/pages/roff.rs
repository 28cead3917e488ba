//! A page in the language of man(7).

use crate::manual::text::{Block, Span, spans};
use crate::manual::{Item, Page};

/// The page.
pub(super) fn page(page: &Page<'_>) -> String {
    let mut out = String::new();
    let title = page.name.to_uppercase();
    let source = concat!("corten ", env!("CARGO_PKG_VERSION"));
    // Without a date: the same sources make the same page.
    out.push_str(&format!(".TH {} 8 \"\" \"{source}\" \"System Manager\\(aqs Manual\"\n", literal(&title)));
    out.push_str(&format!(".SH NAME\n{} \\- {}\n", literal(&page.name), prose(&lower_first(&page.about))));
    out.push_str(".SH SYNOPSIS\n");
    let synopsis: Vec<String> = page.synopsis.iter().map(|line| synopsis(line)).collect();
    out.push_str(&synopsis.join(".br\n"));
    let (description, rest): (Vec<_>, Vec<_>) =
        page.sections.iter().partition(|section| section.heading == "DESCRIPTION");
    for section in description {
        heading(&mut out, section.heading, &section.blocks);
    }
    commands(&mut out, page);
    for (title, items) in [("ARGUMENTS", &page.arguments), ("OPTIONS", &page.options)] {
        if !items.is_empty() {
            out.push_str(&format!(".SH {title}\n"));
            items.iter().for_each(|item| describe(&mut out, item));
        }
    }
    for section in rest {
        heading(&mut out, section.heading, &section.blocks);
    }
    out
}

fn heading(out: &mut String, title: &str, content: &[Block]) {
    out.push_str(&format!(".SH {title}\n"));
    blocks(out, content);
}

fn commands(out: &mut String, page: &Page<'_>) {
    if page.commands.is_empty() {
        return;
    }
    out.push_str(".SH COMMANDS\n");
    for (name, about) in &page.commands {
        // Clap's own command has no page.
        let reference = if *name == "help" { String::new() } else { format!("; see {}-{name}(8)", page.name) };
        out.push_str(&format!(".TP\n\\fB{}\\fR\n{}.\n", literal(name), prose(&format!("{about}{reference}"))));
    }
}

fn describe(out: &mut String, item: &Item) {
    let positional = item.spellings.iter().all(|spelling| !spelling.starts_with('-'));
    let font = if positional { 'I' } else { 'B' };
    let spellings: Vec<String> =
        item.spellings.iter().map(|spelling| format!("\\f{font}{}\\fR", literal(spelling))).collect();
    let value = item.value.as_ref().map(|value| format!(" \\fI{}\\fR", literal(value))).unwrap_or_default();
    out.push_str(&format!(".TP\n{}{value}\n{}.\n", spellings.join(", "), prose(&item.sentence())));
    if let Some(default) = &item.default {
        out.push_str(&format!("The default is {}.\n", literal(default)));
    }
    for block in &item.details {
        if let Block::Entry(_, paragraphs) = block {
            paragraphs.iter().for_each(|text| out.push_str(&format!("{}\n", prose(text))));
        }
    }
    let told: Vec<_> = item.values.iter().filter(|(_, help)| !help.is_empty()).collect();
    if !told.is_empty() {
        out.push_str(".RS\n");
        for (name, help) in told {
            out.push_str(&format!(".TP\n\\fB{}\\fR\n{}.\n", literal(name), prose(help)));
        }
        out.push_str(".RE\n");
    }
}

fn blocks(out: &mut String, blocks: &[Block]) {
    let mut first = true;
    for block in blocks {
        match block {
            Block::Paragraph(text) => {
                let gap = if first { "" } else { ".PP\n" };
                out.push_str(&format!("{gap}{}\n", prose(text)));
            }
            Block::Verbatim(lines) => {
                out.push_str(".PP\n.in +4n\n.EX\n");
                lines.iter().for_each(|line| out.push_str(&format!("{}\n", guarded(&literal(line)))));
                out.push_str(".EE\n.in\n");
            }
            Block::Entry(term, paragraphs) => {
                out.push_str(&format!(".TP\n{}\n", term_of(term)));
                for (index, text) in paragraphs.iter().enumerate() {
                    let gap = if index == 0 { "" } else { ".IP\n" };
                    out.push_str(&format!("{gap}{}\n", prose(text)));
                }
            }
        }
        first = false;
    }
}

/// A term: a number, or words with marks.
fn term_of(term: &str) -> String {
    match term.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("\\fB{term}\\fR"),
        false => prose(term),
    }
}

/// A command line: what is in capitals stands for something, brackets and dots are of the notation.
fn synopsis(line: &str) -> String {
    let mut words = Vec::new();
    for word in line.split(' ') {
        let bare = word.trim_matches(|letter: char| "[].".contains(letter));
        let (before, after) = word.split_once(bare).unwrap_or((word, ""));
        // -SIGNAL: a dash and what stands for something.
        let (dash, bare) =
            match bare.strip_prefix('-').filter(|rest| rest.starts_with(|first: char| first.is_uppercase())) {
                Some(rest) => ("\\fB\\-\\fR", rest),
                None => ("", bare),
            };
        let capitals = bare.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') && !bare.starts_with('-');
        let font = if capitals { 'I' } else { 'B' };
        words.push(format!("{before}{dash}\\f{font}{}\\fR{after}", literal(bare)));
    }
    guarded(&words.join(" ")) + "\n"
}

/// A paragraph, its literals bold, what stands for something in italics, other pages bold.
fn prose(text: &str) -> String {
    let spans = spans(text);
    let set: String = spans
        .iter()
        .map(|span| match span {
            Span::Literal(text) => format!("\\fB{}\\fR", literal(text)),
            Span::Placeholder(text) => format!("\\fI{}\\fR", literal(text)),
            Span::Plain(text) => references(text),
        })
        .collect();
    guarded(&set)
}

/// Plain words: `name(8)` has its name in bold, as man-pages(7) wants, and options keep their dashes.
fn references(text: &str) -> String {
    let word = |word: &str| {
        let page = word.split_once('(').filter(|(name, rest)| {
            !name.is_empty() && rest.as_bytes().first().is_some_and(u8::is_ascii_digit) && rest[1..].starts_with(')')
        });
        match page {
            Some((name, rest)) => format!("\\fB{}\\fR({rest}", literal(name)),
            None if word.starts_with('-') => literal(word),
            None => word.replace('\\', "\\e"),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Text as it is: dashes are those of the keyboard.
fn literal(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('^', "\\(ha")
        .replace('~', "\\(ti")
        .replace('`', "\\(ga")
}

/// A line that is no request.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

/// The about of a command in the middle of a sentence; an abbreviation keeps its capitals.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}
