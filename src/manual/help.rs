//! A page on a terminal.

use super::text::{Block, Section, Span, spans};
use super::{Form, Item, Page};

/// Where the second column begins, and from which width on there is one.
const COLUMN: usize = 26;
const TWO_COLUMNS: usize = 60;

/// The page as text, without a line break at its end.
pub(super) fn lay_out(page: &Page<'_>, form: Form) -> String {
    let mut out = Text { lines: Vec::new(), width: form.width };
    out.filled(0, &format!("{}.", page.about));
    out.usage(&page.synopsis);
    let mut sections = page.sections.iter();
    if form.whole
        && let Some(description) = sections.next_if_heading("DESCRIPTION")
    {
        out.blank();
        out.blocks(0, &description.blocks);
    }
    let commands: Vec<Item> = page.commands.iter().map(|(name, about)| command(name, about)).collect();
    for (title, items) in [("Commands", &commands), ("Arguments", &page.arguments), ("Options", &page.options)] {
        if !items.is_empty() {
            out.title(title);
            items.iter().for_each(|item| out.item(item, form.whole));
        }
    }
    if !form.whole {
        out.blank();
        let command = page.name.replacen('-', " ", 2);
        out.filled(0, &format!("`{command} --help` prints a description, exit statuses and examples."));
    }
    for section in sections.filter(|_| form.whole) {
        out.title(&sentence_case(section.heading));
        out.blocks(2, &section.blocks);
    }
    out.lines.join("\n") + "\n"
}

/// Takes the next section if it has that heading.
trait NextIfHeading<'a> {
    fn next_if_heading(&mut self, heading: &str) -> Option<&'a Section>;
}

impl<'a> NextIfHeading<'a> for std::slice::Iter<'a, Section> {
    fn next_if_heading(&mut self, heading: &str) -> Option<&'a Section> {
        let next = self.as_slice().first().filter(|section| section.heading == heading)?;
        self.next();
        Some(next)
    }
}

fn command(name: &str, about: &str) -> Item {
    Item {
        spellings: vec![name.to_owned()],
        value: None,
        help: about.to_owned(),
        details: Vec::new(),
        values: Vec::new(),
        default: None,
    }
}

/// `EXIT STATUS` as a title: `Exit status`.
fn sentence_case(heading: &str) -> String {
    let (first, rest) = heading.split_at(1);
    first.to_owned() + &rest.to_lowercase()
}

/// Lines in the making.
struct Text {
    lines: Vec<String>,
    width: usize,
}

impl Text {
    fn blank(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(String::new());
        }
    }

    fn title(&mut self, title: &str) {
        self.blank();
        self.lines.push(format!("{title}:"));
    }

    fn usage(&mut self, synopsis: &[&str]) {
        self.blank();
        for (index, line) in synopsis.iter().enumerate() {
            let head = if index == 0 { "Usage: " } else { "       " };
            self.hung(head, line, 15);
        }
    }

    /// Words from a column on, as many in a line as fit.
    fn filled(&mut self, indent: usize, text: &str) {
        self.hung(&" ".repeat(indent), text, indent);
    }

    /// The same with something before the words of the first line.
    fn hung(&mut self, head: &str, text: &str, indent: usize) {
        let text: String = spans(text).iter().map(|span| bare(*span)).collect();
        let mut line = head.to_owned();
        let mut empty = true;
        for word in text.split_whitespace() {
            if !empty && line.chars().count() + 1 + word.chars().count() > self.width {
                self.lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                empty = true;
            }
            line.extend((!empty).then_some(' '));
            line.push_str(word);
            empty = false;
        }
        self.lines.push(line.trim_end().to_owned());
    }

    /// A term and what is said of it beside it, or below where there is no place.
    fn entry(&mut self, indent: usize, column: usize, term: &str, text: &str) {
        let column = if self.width < TWO_COLUMNS { indent + 4 } else { column };
        let head = format!("{:indent$}{term}", "");
        if head.chars().count() + 2 > column {
            self.lines.push(head.trim_end().to_owned());
            return self.filled(column, text);
        }
        self.hung(&format!("{head:<column$}"), text, column);
    }

    fn item(&mut self, item: &Item, whole: bool) {
        let lone_long = item.spellings.first().is_some_and(|first| first.starts_with("--"));
        let value = item.value.as_ref().map(|value| format!(" {value}")).unwrap_or_default();
        let term = format!("{}{}{value}", if lone_long { "    " } else { "" }, item.spellings.join(", "));
        let mut text = item.sentence();
        let details = item.details.iter().filter_map(|block| match block {
            Block::Entry(_, paragraphs) if whole => Some(paragraphs.join(" ")),
            _ => None,
        });
        details.for_each(|details| text.push_str(&format!(". {details}")));
        text.extend(item.default.as_ref().map(|value| format!(" [default: {value}]")));
        self.entry(2, COLUMN, &term, &text);
        let column = if self.width < TWO_COLUMNS { 6 } else { COLUMN };
        for (name, help) in item.values.iter().filter(|(_, help)| whole && !help.is_empty()) {
            self.entry(column, column + 10, name, help);
        }
    }

    fn blocks(&mut self, indent: usize, blocks: &[Block]) {
        let widest = blocks.iter().filter_map(|block| match block {
            Block::Entry(term, _) => Some(bare_term(term).chars().count()),
            _ => None,
        });
        // Exit codes get a narrow column, paths a wide one.
        let column = if widest.max().unwrap_or(0) <= 6 { indent + 8 } else { COLUMN };
        for (index, block) in blocks.iter().enumerate() {
            match block {
                Block::Paragraph(text) => {
                    if index > 0 {
                        self.blank();
                    }
                    self.filled(indent, text);
                }
                Block::Verbatim(lines) => {
                    self.blank();
                    self.lines.extend(lines.iter().map(|line| format!("{:width$}{line}", "", width = indent + 2)));
                    self.blank();
                }
                Block::Entry(term, paragraphs) => {
                    if index > 0 && !matches!(blocks[index - 1], Block::Entry(..)) {
                        self.blank();
                    }
                    let (first, more) = paragraphs.split_first().expect("an entry has a paragraph");
                    self.entry(indent, column, &bare_term(term), first);
                    more.iter().for_each(|paragraph| self.filled(column, paragraph));
                }
            }
        }
        while self.lines.last().is_some_and(String::is_empty) {
            self.lines.pop();
        }
    }
}

fn bare(span: Span<'_>) -> &str {
    match span {
        Span::Plain(text) | Span::Literal(text) | Span::Placeholder(text) => text,
    }
}

fn bare_term(term: &str) -> String {
    spans(term).iter().map(|span| bare(*span)).collect()
}
