mod arguments;
mod inspect;
mod invalidation;
mod measure;
mod value;
