//! Reading a JSON Schema: the forms that it allows a value to take.

use serde_json::Value as Json;

/// One of the forms that a value may take: all these schemas apply to it.
pub(super) type Form<'a> = Vec<&'a Json>;

/// The forms that a schema allows, its references and alternatives followed.
pub(super) fn forms<'a>(root: &'a Json, schema: &'a Json) -> Vec<Form<'a>> {
    let mut found = vec![vec![schema]];
    let mut all: Vec<Vec<&'a Json>> = Vec::new();
    let reference = schema.get("$ref").and_then(Json::as_str);
    all.extend(
        reference
            .and_then(|path| root.pointer(path.trim_start_matches('#')))
            .map(|target| vec![target]),
    );
    all.extend(list(schema.get("allOf")).map(|part| vec![part]));
    all.extend(
        ["oneOf", "anyOf"]
            .iter()
            .filter_map(|key| schema.get(*key))
            .map(|choices| list(Some(choices)).collect()),
    );
    for choices in all {
        let choices: Vec<Form<'a>> = choices
            .into_iter()
            .flat_map(|choice| forms(root, choice))
            .collect();
        found = found
            .iter()
            .flat_map(|form| {
                choices
                    .iter()
                    .map(move |choice| [form.as_slice(), choice].concat())
            })
            .collect();
    }
    found
}

/// The entries of an array; none where there is no array.
pub(super) fn list(array: Option<&Json>) -> impl Iterator<Item = &Json> {
    array.and_then(Json::as_array).into_iter().flatten()
}

/// The keys that a form of a table knows, with their schemas.
pub(super) fn properties<'a>(form: &Form<'a>) -> impl Iterator<Item = (&'a str, &'a Json)> {
    let maps = form
        .iter()
        .filter_map(|schema| schema.get("properties")?.as_object());
    maps.flatten().map(|(key, schema)| (key.as_str(), schema))
}

/// The key and value that tell a form of a table from the others (`name = "moe_cl"`).
pub(super) fn tag<'a>(form: &Form<'a>) -> Option<(&'a str, &'a str)> {
    properties(form).find_map(|(key, schema)| Some((key, schema.get("const")?.as_str()?)))
}

/// The JSON types that a form names.
pub(super) fn types<'f>(form: &'f Form<'_>) -> impl Iterator<Item = &'f str> {
    form.iter()
        .filter_map(|schema| schema.get("type"))
        .flat_map(|kind| {
            kind.as_str()
                .into_iter()
                .chain(list(Some(kind)).filter_map(Json::as_str))
        })
}
