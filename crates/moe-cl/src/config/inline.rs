//! Forms of a table that are told apart by a tag (`method.name`), written so that every draft of JSON Schema reads them alike: older
//! drafts, which editors know, ignore what stands beside a reference, and with it the tag.

use serde_json::{Map, Value as Json};

/// Puts what such a form refers to in the place of its reference.
pub(super) fn inline_forms(schema: &mut Json) {
    let definitions = schema["$defs"].clone();
    let tables = schema.get_mut("$defs").and_then(Json::as_object_mut);
    let tables = tables.into_iter().flatten();
    let forms = tables.filter_map(|(_, table)| table.get_mut("oneOf")?.as_array_mut());
    let forms = forms.flatten();
    for form in forms.filter_map(Json::as_object_mut) {
        if form.contains_key("properties")
            && let Some(Json::String(target)) = form.remove("$ref")
        {
            let target = target.trim_start_matches("#/$defs/");
            merge(form, &definitions[target]);
        }
    }
}

fn merge(form: &mut Map<String, Json>, target: &Json) {
    form.remove("unevaluatedProperties");
    form.insert("additionalProperties".into(), false.into());
    let options = target["properties"].as_object().into_iter().flatten();
    let properties = form.get_mut("properties").and_then(Json::as_object_mut);
    properties
        .expect("a form with a tag has properties")
        .extend(options.map(|(key, schema)| (key.clone(), schema.clone())));
    let required = target["required"].as_array().into_iter().flatten().cloned();
    if let Some(own) = form.get_mut("required").and_then(Json::as_array_mut) {
        own.extend(required);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Experiment;

    #[test]
    fn no_form_with_a_tag_refers_to_anything() {
        let schema = Experiment::schema();
        let methods = schema["$defs"]["MethodConfig"]["oneOf"].as_array().unwrap();
        for method in methods {
            let name = &method["properties"]["name"]["const"];
            assert!(name.is_string(), "{method}");
            assert!(method.get("$ref").is_none(), "{name}");
            assert_eq!(method["additionalProperties"], false, "{name}");
        }
        assert!(methods[0]["properties"].get("adversarial_weight").is_some());
    }
}
