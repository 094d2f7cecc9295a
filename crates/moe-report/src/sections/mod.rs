//! The parts of the page below its head. Each is empty where no run has what it shows.

mod accuracy;
mod balance;
mod captions;
mod courses;
mod layers;
mod notes;
mod routing;
mod training;

pub use accuracy::{forgetting, matrices};
pub use balance::balance;
pub use layers::layer_figures;
pub use notes::{settings, warnings};
pub use routing::routing;
pub use training::{losses, step_figures};

use crate::{colours::method_class, svg::escape};

fn section(title: &str, how: &str, content: &str) -> String {
    format!(
        "<section><h2>{}</h2><p class=\"how\">{}</p>{content}</section>",
        escape(title),
        escape(how)
    )
}

fn figure(name: &str, index: usize, svg: &str) -> String {
    let class = method_class(index);
    format!(
        "<figure><figcaption class=\"of {class}\">{}</figcaption><div class=\"scroll\">{svg}</div></figure>",
        escape(name)
    )
}
