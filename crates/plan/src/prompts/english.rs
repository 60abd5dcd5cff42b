//! English: articles by sound, and plurals.

/// `a` or `an` before a phrase.
pub(super) fn article(phrase: &str) -> &'static str {
    if starts_with_vowel_sound(phrase) { "an" } else { "a" }
}

/// Acronyms that are read as words.
const READ_AS_WORDS: [&str; 12] =
    ["NASA", "NATO", "RAM", "ROM", "SIM", "LAN", "LASER", "RADAR", "SONAR", "SCUBA", "FIFA", "SWAT"];

/// Beginnings with a vowel that sound like `y` or `w`.
const CONSONANT_SOUNDS: [&str; 21] = [
    "eu", "ewe", "ubiq", "ufo", "ugand", "uk", "uni", "ura", "ure", "uri", "uro", "uru", "usa", "use", "usu", "uta",
    "ute", "uti", "uto", "ouija", "once",
];

/// Beginnings that look like those but are `un-` before a vowel or its like.
const UN_PREFIXES: [&str; 9] =
    ["unin", "unim", "unident", "unideal", "unill", "uniss", "unironed", "unironic", "uninhab"];

/// Beginnings with a silent `h`.
const SILENT_H: [&str; 5] = ["hour", "honest", "honor", "honour", "heir"];

fn starts_with_vowel_sound(phrase: &str) -> bool {
    let phrase = phrase.trim_start_matches(|c: char| !c.is_alphanumeric());
    let first: String = phrase.chars().take_while(|c| c.is_alphanumeric()).collect();
    if first.starts_with(|c: char| c.is_ascii_digit()) {
        return number_starts_with_vowel_sound(phrase);
    }
    let shouting = phrase.contains(' ') && phrase == phrase.to_uppercase();
    if is_spelled_out(&first) && !shouting {
        return first.starts_with(|c: char| "AEFHILMNORSX".contains(c));
    }
    let word = first.to_lowercase();
    let begins = |with: &[&str]| with.iter().any(|with| word.starts_with(with));
    if begins(&SILENT_H) {
        return true;
    }
    if word == "one" || word == "ones" || begins(&CONSONANT_SOUNDS) && !begins(&UN_PREFIXES) {
        return false;
    }
    let mut letters = word.chars();
    match letters.next().map(plain) {
        Some('a' | 'e' | 'i' | 'o' | 'u') => true,
        // Yttrium, but yellow.
        Some('y') => letters.next().is_some_and(|next| !"aeiou".contains(plain(next))),
        _ => false,
    }
}

/// Letters read one by one: `MRI`, `X` in `X-ray`.
fn is_spelled_out(word: &str) -> bool {
    let letters = word.trim_end_matches('s');
    !letters.is_empty()
        && letters.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        && !READ_AS_WORDS.contains(&letters)
        && (letters.len() > 1 || word.len() == 1)
        && letters.len() < 6
}

/// Eight, eleven and eighteen, and what begins with them when read out: 8, 80, 11, 11,000, 18th.
fn number_starts_with_vowel_sound(phrase: &str) -> bool {
    let number = phrase.chars().take_while(|&c| c.is_ascii_digit() || c == ',');
    let digits: String = number.filter(char::is_ascii_digit).collect();
    digits.starts_with('8') || digits.len() % 3 == 2 && (digits.starts_with("11") || digits.starts_with("18"))
}

/// A letter without its accent, as far as it matters for vowels.
fn plain(letter: char) -> char {
    match letter {
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'æ' => 'a',
        'è' | 'é' | 'ê' | 'ë' => 'e',
        'ì' | 'í' | 'î' | 'ï' => 'i',
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'œ' => 'o',
        'ù' | 'ú' | 'û' | 'ü' => 'u',
        other => other,
    }
}

/// Words after which the head of a phrase does not come any more: `pair of shoes`.
const AFTER_THE_HEAD: [&str; 14] =
    ["of", "with", "without", "in", "on", "at", "for", "from", "by", "to", "wearing", "holding", "made", "under"];

/// The plural of a phrase: of its last word, or of the one before the first preposition.
pub(super) fn plural(phrase: &str) -> String {
    let words: Vec<&str> = phrase.split(' ').collect();
    let after = words.iter().position(|word| AFTER_THE_HEAD.contains(&word.to_lowercase().as_str()));
    let head = after.unwrap_or(words.len()).saturating_sub(1);
    let word = |(i, word): (usize, &&str)| if i == head { plural_of_word(word) } else { (*word).to_owned() };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// Endings of words with a plural of their own. The longest that fits decides.
const IRREGULAR: [(&str, &str); 45] = [
    ("woman", "women"),
    ("man", "men"),
    ("child", "children"),
    ("person", "people"),
    ("foot", "feet"),
    ("tooth", "teeth"),
    ("goose", "geese"),
    ("mongoose", "mongooses"),
    ("mouse", "mice"),
    ("louse", "lice"),
    ("blouse", "blouses"),
    ("ox", "oxen"),
    ("box", "boxes"),
    ("fox", "foxes"),
    ("calf", "calves"),
    ("half", "halves"),
    ("knife", "knives"),
    ("leaf", "leaves"),
    ("wildlife", "wildlife"),
    ("life", "lives"),
    ("loaf", "loaves"),
    ("scarf", "scarves"),
    ("self", "selves"),
    ("shelf", "shelves"),
    ("thief", "thieves"),
    ("wife", "wives"),
    ("wolf", "wolves"),
    ("elf", "elves"),
    ("hoof", "hooves"),
    ("sheaf", "sheaves"),
    ("potato", "potatoes"),
    ("tomato", "tomatoes"),
    ("hero", "heroes"),
    ("echo", "echoes"),
    ("mosquito", "mosquitoes"),
    ("volcano", "volcanoes"),
    ("cactus", "cacti"),
    ("fungus", "fungi"),
    ("axis", "axes"),
    ("oasis", "oases"),
    ("crisis", "crises"),
    ("quiz", "quizzes"),
    ("stomach", "stomachs"),
    ("monarch", "monarchs"),
    ("lens", "lenses"),
];

/// Words in `-man` that are no men, and others that only end like an irregular one.
const REGULAR: [&str; 12] = [
    "human", "german", "roman", "norman", "ottoman", "shaman", "talisman", "caiman", "turkoman", "pox", "paradox",
    "behalf",
];

/// Words that are the same for one and for several.
const INVARIABLE: [&str; 29] = [
    "sheep",
    "deer",
    "moose",
    "fish",
    "bison",
    "salmon",
    "trout",
    "shrimp",
    "swine",
    "offspring",
    "aircraft",
    "spacecraft",
    "watercraft",
    "underwear",
    "clothing",
    "furniture",
    "jewellery",
    "jewelry",
    "equipment",
    "luggage",
    "footwear",
    "headwear",
    "outerwear",
    "sportswear",
    "knitwear",
    "swimwear",
    "hair",
    "people",
    "swiss",
];

fn plural_of_word(word: &str) -> String {
    if let Some((head, rest)) = word.split_once("-in-") {
        return format!("{}-in-{rest}", plural_of_word(head));
    }
    let small = word.to_lowercase();
    if is_spelled_out(word) {
        return format!("{word}s");
    }
    if INVARIABLE.iter().any(|same| small == *same || small.ends_with(&format!("-{same}"))) || is_plural(&small) {
        return word.to_owned();
    }
    let regular = REGULAR.iter().any(|end| small.ends_with(end));
    let irregular = IRREGULAR.iter().filter(|(one, _)| small.ends_with(one)).max_by_key(|(one, _)| one.len());
    if let (Some((one, many)), false) = (irregular, regular) {
        return with_ending(word, one.len(), many);
    }
    let before_last = small.chars().rev().nth(1).unwrap_or(' ');
    if small.ends_with('y') && !"aeiou".contains(before_last) {
        return with_ending(word, 1, "ies");
    }
    let hisses = ["s", "x", "z", "ch", "sh"].iter().any(|end| small.ends_with(end));
    format!("{word}{}", if hisses { "es" } else { "s" })
}

/// Whether the word is a plural as it stands: trousers, shoes, Japanese; not dress, bus, iris, canvas, lens.
fn is_plural(small: &str) -> bool {
    let singular = ["ss", "us", "is", "as", "os", "lens"];
    small.ends_with("ese") && small.len() > 5
        || small.ends_with('s') && !singular.iter().any(|end| small.ends_with(end))
}

/// The word with its last `cut` bytes replaced; a capital at the place of the cut stays one.
fn with_ending(word: &str, cut: usize, ending: &str) -> String {
    let Some((stem, cut)) = word.len().checked_sub(cut).and_then(|at| word.split_at_checked(at)) else {
        return format!("{word}s");
    };
    match cut.starts_with(char::is_uppercase) {
        true => stem.to_owned() + &super::template::with_first(ending, |first| first.to_uppercase().collect()),
        false => stem.to_owned() + ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_the_sound() {
        for word in [
            "hour",
            "honest face",
            "heir",
            "heirloom",
            "apple",
            "umbrella",
            "orange coat",
            "X-ray",
            "8-year-old",
            "MRI",
            "MRI scan",
            "11th",
            "18-wheeler",
            "11,000 kg lorry",
            "80 year old",
            "unidentified man",
            "uninteresting place",
            "unimpressed child",
            "usher",
            "urban street",
            "urn",
            "onerous task",
            "LED lamp",
            "FBI agent",
            "élan",
            "'ugly' jumper",
            "utter mess",
            "yttrium rod",
            "honour guard",
            "HR office",
            "S-bend",
        ] {
            assert_eq!(article(word), "an", "{word}");
        }
        for word in [
            "unicorn",
            "university",
            "European",
            "one-eyed cat",
            "one",
            "once-loved toy",
            "house",
            "coat",
            "uniform",
            "union",
            "user",
            "used car",
            "usual suspect",
            "utensil",
            "utility van",
            "ukulele",
            "UFO",
            "US flag",
            "T-shirt",
            "NASA jacket",
            "UV lamp",
            "yellow bag",
            "1-year-old",
            "110 year old",
            "1800s dress",
            "eulogy",
            "ewe",
            "hero",
            "herd",
            "TV",
            "CD",
            "U-turn",
            "Ugandan",
            "RED COAT",
            "unisex shirt",
            "9-to-5 job",
            "100",
        ] {
            assert_eq!(article(word), "a", "{word}");
        }
    }

    #[test]
    fn plurals_follow_the_rules_and_their_exceptions() {
        for (one, many) in [
            ("coat", "coats"),
            ("dress", "dresses"),
            ("box", "boxes"),
            ("watch", "watches"),
            ("brush", "brushes"),
            ("lady", "ladies"),
            ("boy", "boys"),
            ("knife", "knives"),
            ("roof", "roofs"),
            ("chef", "chefs"),
            ("potato", "potatoes"),
            ("photo", "photos"),
            ("kimono", "kimonos"),
            ("man", "men"),
            ("woman", "women"),
            ("fireman", "firemen"),
            ("human", "humans"),
            ("German", "Germans"),
            ("child", "children"),
            ("Person", "People"),
            ("salesperson", "salespeople"),
            ("foot", "feet"),
            ("tooth", "teeth"),
            ("mouse", "mice"),
            ("blouse", "blouses"),
            ("house", "houses"),
            ("sheep", "sheep"),
            ("trousers", "trousers"),
            ("jeans", "jeans"),
            ("ankle boots", "ankle boots"),
            ("bus", "buses"),
            ("glass", "glasses"),
            ("scarf", "scarves"),
            ("lens", "lenses"),
            ("quiz", "quizzes"),
            ("MRI", "MRIs"),
            ("pair of shoes", "pairs of shoes"),
            ("woman in a red coat", "women in a red coat"),
            ("mother-in-law", "mothers-in-law"),
            ("8-year-old", "8-year-olds"),
            ("T-shirt", "T-shirts"),
            ("Japanese", "Japanese"),
            ("ox", "oxen"),
            ("fox", "foxes"),
            ("goose", "geese"),
            ("mongoose", "mongooses"),
            ("canvas", "canvases"),
            ("stomach", "stomachs"),
            ("wolf", "wolves"),
            ("café", "cafés"),
            ("", "s"),
        ] {
            assert_eq!(plural(one), many);
        }
    }
}
