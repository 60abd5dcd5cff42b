use super::*;

#[test]
fn columns_whose_values_repeat_are_attributes_and_the_others_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "id,Class,colour,age,height,site,note,split,empty\n".to_owned();
    for row in 0..200 {
        let colour = ["red", "green", "blue"][row % 3];
        let split = ["train", "test"][row % 2];
        let height = 1.5 + row as f64 / 7.0;
        text += &format!("{row},{},{colour},{},{height},here,note {row},{split},\n", row % 2, row % 80);
    }
    write(folder.path(), &[("a.csv", &text)]);
    let guess = open(&folder.path().join("a.csv")).unwrap().guess().unwrap();
    assert_eq!(guess.attributes, ["Class", "colour"]);
    assert_eq!(guess.label.as_deref(), Some("Class"));
    let reason = |name: &str| guess.left_out.iter().find(|(own, _)| own == name).unwrap().1.as_str();
    assert!(reason("id").contains("hardly repeat"), "{:?}", guess.left_out);
    assert!(reason("age").contains("80 distinct values"));
    assert!(reason("height").contains("measurements"));
    assert!(reason("site").contains("same value"));
    assert!(reason("note").contains("hardly repeat"));
    assert!(reason("split").contains("split"));
    assert!(reason("empty").contains("no values"));
}

#[test]
fn at_most_twelve_attributes_are_taken_and_the_label_is_one_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let header: Vec<String> = (0..14).map(|column| format!("c{column}")).chain(["label".to_owned()]).collect();
    let mut text = header.join(",") + "\n";
    for row in 0..200 {
        let cells: Vec<String> = (0..14).map(|column| (row % (column + 2)).to_string()).collect();
        text += &format!("{},{}\n", cells.join(","), row % 40);
    }
    write(folder.path(), &[("a.csv", &text)]);
    let guess = open(&folder.path().join("a.csv")).unwrap().guess().unwrap();
    assert_eq!(guess.attributes.len(), 12);
    assert_eq!(guess.attributes.last().map(String::as_str), Some("label"));
    let left_out: Vec<&str> = guess.left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left_out, ["c11", "c12", "c13"]);
}

#[test]
fn a_split_is_an_attribute_where_there_is_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        format!("id,split\n{}", (0..50).map(|row| format!("{row},{}\n", ["a", "b"][row % 2])).collect::<String>());
    write(folder.path(), &[("a.csv", &text)]);
    assert_eq!(open(&folder.path().join("a.csv")).unwrap().guess().unwrap().attributes, ["split"]);
}
