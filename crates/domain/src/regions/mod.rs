//! Regions: names under which databases are made. All of them are this machine, unless the
//! operator says otherwise; the default list is the one that clients check their input against.

use base::error::{Error, Result};

/// The region of a database when nobody names one.
pub const DEFAULT: &str = "us-east-1";

/// The ids of the default list.
const BUILT_IN: [&str; 6] = ["us-east-1", "us-west-1", "eu-west-3", "eu-central-1", "ap-northeast-1", "ap-southeast-1"];
/// What each of them is, unless the operator says otherwise. A city here would be a false statement about where data
/// is.
const THIS_SERVER: &str = "This server";

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The region's ID, such as `us-east-1`.
    pub id: String,
    /// The region's name for people.
    pub name: String,
}

/// The regions of this installation, in the order in which they are listed.
#[derive(Clone, Debug)]
pub struct Regions(Vec<Region>);

impl Default for Regions {
    fn default() -> Self {
        Self(BUILT_IN.iter().map(|id| Region { id: (*id).into(), name: THIS_SERVER.into() }).collect())
    }
}

impl Regions {
    /// The operator's own list of `ID=NAME`; the default list when it is empty.
    ///
    /// # Errors
    /// A sentence when an entry is not of that form.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        if entries.is_empty() {
            return Ok(Self::default());
        }
        entries
            .iter()
            .map(|entry| match entry.split_once('=') {
                Some((id, name)) if !id.is_empty() && !name.is_empty() => {
                    Ok(Region { id: id.into(), name: name.into() })
                }
                _ => Err(format!("the region {entry:?} is not of the form ID=NAME, such as us-east-1=Rack 4")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// All regions.
    pub fn list(&self) -> &[Region] {
        &self.0
    }

    /// Whether there is more than one place to choose from: all regions with the same name are one.
    pub fn are_several(&self) -> bool {
        self.0.windows(2).any(|pair| matches!(pair, [one, other] if one.name != other.name))
    }

    /// The name of a region for people, where there is more than one.
    pub fn label(&self, id: &str) -> Option<String> {
        self.are_several().then(|| self.describe(id).name)
    }

    /// The region with this id, whose name may be gone from the configuration by now.
    pub fn describe(&self, id: &str) -> Region {
        self.0
            .iter()
            .find(|region| region.id == id)
            .cloned()
            .unwrap_or_else(|| Region { id: id.into(), name: id.into() })
    }

    /// Where a database goes when nobody says: `us-east-1`, or the first of the operator's list.
    pub fn default_id(&self) -> &str {
        match self.0.iter().find(|region| region.id == DEFAULT).or(self.0.first()) {
            Some(region) => &region.id,
            None => DEFAULT,
        }
    }

    /// Checks a region that a caller named.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the list of those that exist.
    pub fn check(&self, id: &str) -> Result<()> {
        if self.0.iter().any(|region| region.id == id) {
            return Ok(());
        }
        let known: Vec<&str> = self.0.iter().map(|region| region.id.as_str()).collect();
        Err(Error::invalid(
            format!("region: {id:?} is not a region of this server"),
            format!("Use one of {}.", known.join(", ")),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_the_same_name_are_one_place() {
        assert!(!Regions::default().are_several());
        assert_eq!(Regions::default().label("eu-central-1"), None);
        assert_eq!(Regions::default().describe("eu-central-1").name, "This server");
        let entries = ["a=Rack 1", "b=Rack 1", "c=Rack 2"].map(str::to_owned);
        let regions = Regions::parse(&entries).unwrap();
        assert_eq!(regions.label("b").as_deref(), Some("Rack 1"));
    }
}
