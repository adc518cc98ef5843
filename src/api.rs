mod arguments;
mod counter;
mod inspect;
mod invalidation;
mod many;
mod measure;
mod space;
mod value;
