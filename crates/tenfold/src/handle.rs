//! What all handle types have in common: they travel in messages, and compare by what they name.

/// Implements serde's traits and equality for a handle type with a method `handle()` and a
/// constructor `from_handle(Handle) -> Result<Self>`.
macro_rules! handle_type {
    ($face:ident $(<$item:ident: $bound:path>)?, $kind:ident) => {
        impl$(<$item: $bound>)? serde::Serialize for $face$(<$item>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
                crate::payload::serialize_handle::<Self, S>(self.handle(), serializer)
            }
        }

        impl<'de $(, $item: $bound)?> serde::Deserialize<'de> for $face$(<$item>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
                let kind = tenfold_engine::ObjectKind::$kind;
                let handle = crate::payload::deserialize_handle::<Self, D>(kind, deserializer)?;
                Self::from_handle(handle).map_err(serde::de::Error::custom)
            }
        }

        impl$(<$item: $bound>)? PartialEq for $face$(<$item>)? {
            /// Whether both name the same object.
            fn eq(&self, other: &Self) -> bool {
                self.handle() == other.handle()
            }
        }

        impl$(<$item: $bound>)? Eq for $face$(<$item>)? {}
    };
}

pub(crate) use handle_type;
