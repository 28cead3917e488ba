//! The pages as one chapter of the manual, in Markdown.

use crate::manual::text::{Block, Span, spans};
use crate::manual::{Item, Page};

/// What is above the pages.
pub(super) fn head() -> String {
    "# Commands\n\n<!-- Written by `hack/docs --write` from the definitions of the command line. -->\n\n\
     `corten COMMAND --help` prints the same on a terminal, and `man corten-COMMAND` shows it as a man page. Global options, \
     which precede the command, are those of [corten](#corten).\n"
        .to_owned()
}

/// The page of one command.
pub(super) fn page(page: &Page<'_>) -> String {
    let mut out = format!("\n## {}\n\n{}.\n\n```text\n", page.name.replace('-', " "), page.about);
    page.synopsis.iter().for_each(|line| out.push_str(&format!("{line}\n")));
    out.push_str("```\n");
    let (description, rest): (Vec<_>, Vec<_>) =
        page.sections.iter().partition(|section| section.heading == "DESCRIPTION");
    description.iter().for_each(|section| blocks(&mut out, &section.blocks));
    let below = page.commands.iter().filter(|(name, _)| *name != "help").map(|(name, about)| {
        let anchor = format!("{}-{name}", page.name);
        format!("- [`{name}`](#{anchor}): {about}.")
    });
    list(&mut out, "Commands", below.collect());
    list(&mut out, "Arguments", page.arguments.iter().map(item).collect());
    list(&mut out, "Options", page.options.iter().map(item).collect());
    for section in rest {
        let title = section.heading[..1].to_owned() + &section.heading[1..].to_lowercase();
        out.push_str(&format!("\n**{title}**\n"));
        blocks(&mut out, &section.blocks);
    }
    out
}

fn list(out: &mut String, title: &str, entries: Vec<String>) {
    if !entries.is_empty() {
        out.push_str(&format!("\n**{title}**\n\n{}\n", entries.join("\n")));
    }
}

fn item(item: &Item) -> String {
    let value = item.value.as_ref().map(|value| format!(" {value}")).unwrap_or_default();
    let mut text = format!("- `{}{value}`: {}.", item.spellings.join(", "), prose(&item.sentence()));
    if let Some(default) = &item.default {
        text.push_str(&format!(" The default is {}.", prose(default)));
    }
    for block in &item.details {
        if let Block::Entry(_, paragraphs) = block {
            paragraphs.iter().for_each(|paragraph| text.push_str(&format!(" {}", prose(paragraph))));
        }
    }
    let told = item.values.iter().filter(|(_, help)| !help.is_empty());
    told.for_each(|(name, help)| text.push_str(&format!("\n  - `{name}`: {}.", prose(help))));
    text
}

fn blocks(out: &mut String, blocks: &[Block]) {
    for block in blocks {
        match block {
            Block::Paragraph(text) => out.push_str(&format!("\n{}\n", prose(text))),
            Block::Verbatim(lines) => out.push_str(&format!("\n```text\n{}\n```\n", lines.join("\n"))),
            Block::Entry(term, paragraphs) => {
                let told: Vec<String> = paragraphs.iter().map(|text| prose(text)).collect();
                out.push_str(&format!("\n- {}: {}", prose(term), told.join("\n\n  ")));
                out.push('\n');
            }
        }
    }
}

/// A paragraph: its literals as code, what stands for something in italics.
fn prose(text: &str) -> String {
    let set = |span: &Span<'_>| match span {
        Span::Literal(text) => format!("`{text}`"),
        Span::Placeholder(text) => format!("*{text}*"),
        Span::Plain(text) => text.replace('\\', "\\\\").replace('*', "\\*").replace('_', "\\_").replace('<', "&lt;"),
    };
    spans(text).iter().map(set).collect()
}
