mod inspect;
mod measure;
