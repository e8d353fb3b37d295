//! What runtimes say of a container, in their files or by their API: its name, its image, and the labels
//! that Docker Compose and Kubernetes give it. JSON of which only this is read.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

/// A label's value is cut here.
const MAX_TEXT: usize = 256;

/// What is known of a container; empty where it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) image: String,
    /// Compose's project and service.
    pub(super) project: String,
    pub(super) service: String,
    /// Kubernetes' names.
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

#[derive(Deserialize)]
struct Docker {
    #[serde(rename = "Id", alias = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: DockerConfig,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default)]
    labels: Option<DockerLabels>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerLabels {
    #[serde(rename = "com.docker.compose.project")]
    project: Text,
    #[serde(rename = "com.docker.compose.service")]
    service: Text,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace: Text,
    #[serde(rename = "io.kubernetes.pod.name")]
    pod: Text,
    #[serde(rename = "io.kubernetes.container.name")]
    container: Text,
}

/// Docker's config.v2.json, or its API's answer to `GET /containers/ID/json`, which Podman gives too.
pub(super) fn docker(bytes: &[u8], id: &str) -> Option<Facts> {
    let docker: Docker = serde_json::from_slice(bytes).ok()?;
    // The API finds a container by its name as well.
    if docker.id != id {
        return None;
    }
    let labels = docker.config.labels.unwrap_or_default();
    let facts = Facts {
        name: cut(docker.name.strip_prefix('/').unwrap_or(&docker.name)),
        image: cut(&docker.config.image),
        project: labels.project.0,
        service: labels.service.0,
        // Of Kubernetes with Docker below it.
        namespace: labels.namespace.0,
        pod: labels.pod.0,
        container: labels.container.0,
    };
    (!facts.name.is_empty()).then_some(facts)
}

#[derive(Deserialize)]
struct Podman {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// JSON in a string.
    #[serde(default)]
    metadata: String,
}

#[derive(Deserialize, Default)]
struct PodmanMetadata {
    #[serde(rename = "image-name", default)]
    image: String,
}

/// Podman's containers.json, which has all containers. It does not have their labels.
pub(super) fn podman(bytes: &[u8], id: &str) -> Option<Facts> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let found = json.deserialize_seq(Find(id)).ok()?;
    json.end().ok()?;
    let container = found?;
    let metadata: PodmanMetadata = serde_json::from_str(&container.metadata).unwrap_or_default();
    let name = container.names.unwrap_or_default().into_iter().next()?;
    Some(Facts { name: cut(&name), image: cut(&metadata.image), ..Facts::default() })
}

/// Finds one container among all, and keeps no other: who writes the file may write 4 MiB of them.
struct Find<'a>(&'a str);

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<Podman>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("containers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Option<Podman>, A::Error> {
        let mut found = None;
        while let Some(container) = all.next_element::<Podman>()? {
            if found.is_none() && container.id == self.0 {
                found = Some(container);
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Oci {
    annotations: Annotations,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "nerdctl/name")]
    nerdctl: Text,
    #[serde(rename = "io.kubernetes.cri.container-name")]
    container: Text,
    #[serde(rename = "io.kubernetes.container.name")]
    container_of_crio: Text,
    #[serde(rename = "io.kubernetes.cri.container-type")]
    kind: Text,
    #[serde(rename = "io.kubernetes.cri-o.ContainerType")]
    kind_of_crio: Text,
    #[serde(rename = "io.kubernetes.cri.image-name")]
    image: Text,
    #[serde(rename = "io.kubernetes.cri-o.ImageName")]
    image_of_crio: Text,
    #[serde(rename = "io.kubernetes.cri.sandbox-namespace")]
    namespace: Text,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace_of_crio: Text,
    #[serde(rename = "io.kubernetes.cri.sandbox-name")]
    pod: Text,
    #[serde(rename = "io.kubernetes.pod.name")]
    pod_of_crio: Text,
}

/// The OCI runtime's config.json, with the annotations of containerd's and CRI-O's Kubernetes interface or
/// of nerdctl.
pub(super) fn oci(bytes: &[u8]) -> Option<Facts> {
    let Oci { annotations: a } = serde_json::from_slice(bytes).ok()?;
    let mut container = a.container.or(a.container_of_crio);
    if a.kind.or(a.kind_of_crio) == "sandbox" {
        // As cAdvisor calls what holds a pod's network.
        container = "POD".into();
    }
    let facts = Facts {
        name: a.nerdctl.or(Text(container.clone())),
        image: a.image.or(a.image_of_crio),
        namespace: a.namespace.or(a.namespace_of_crio),
        pod: a.pod.or(a.pod_of_crio),
        container,
        ..Facts::default()
    };
    (!facts.name.is_empty()).then_some(facts)
}

/// A text of which no more is kept than is shown. Anything else in its place is none, and costs no memory.
#[derive(Default)]
struct Text(String);

impl Text {
    fn or(self, other: Text) -> String {
        if self.0.is_empty() { other.0 } else { self.0 }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Text, D::Error> {
        json.deserialize_any(AnyText)
    }
}

struct AnyText;

impl<'de> Visitor<'de> for AnyText {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(cut(text)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Text, A::Error> {
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Text, A::Error> {
        while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text::default())
    }
}

/// All texts that these bytes say as each of the formats.
pub(super) fn fuzz(bytes: &[u8], id: &str) -> Vec<String> {
    let all = [docker(bytes, id), podman(bytes, id), oci(bytes)];
    let texts = |f: Facts| [f.name, f.image, f.project, f.service, f.namespace, f.pod, f.container];
    all.into_iter().flatten().flat_map(texts).collect()
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{"Id":"ab","Name":"/web","Config":{"Image":"nginx:1.27","Labels":{
        "com.docker.compose.project":"shop","com.docker.compose.service":"web","n":null}}}"#;

    #[test]
    fn docker_says_name_image_and_project() {
        let facts = docker(DOCKER.as_bytes(), "ab").unwrap();
        assert_eq!((facts.name.as_str(), facts.image.as_str()), ("web", "nginx:1.27"));
        assert_eq!((facts.project.as_str(), facts.service.as_str()), ("shop", "web"));
        let file = r#"{"ID":"ab","Name":"/db","Config":{"Image":"pg","Labels":null}}"#;
        assert_eq!(docker(file.as_bytes(), "ab").unwrap().name, "db");
        assert_eq!(docker(DOCKER.as_bytes(), "cd"), None, "another container");
    }

    #[test]
    fn cut_and_foreign_json_says_nothing() {
        for length in 0..DOCKER.len() {
            assert_eq!(docker(&DOCKER.as_bytes()[..length], "ab"), None);
        }
        for bad in ["null", "[]", "{}", r#"{"Id":1}"#, r#"{"Id":"ab","Name":"/","Config":{}}"#] {
            assert_eq!(docker(bad.as_bytes(), "ab"), None, "{bad}");
            assert_eq!(oci(bad.as_bytes()), None, "{bad}");
            assert_eq!(podman(bad.as_bytes(), "ab"), None, "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(docker(deep.as_bytes(), "ab"), None);
    }

    #[test]
    fn what_is_no_text_costs_itself() {
        for odd in ["null", "true", "1", "-1", "1.5", "[[],[{}]]", r#"{"a":{"b":[1]}}"#] {
            let json = DOCKER.replace(r#""shop""#, odd);
            let facts = docker(json.as_bytes(), "ab").unwrap();
            assert_eq!((facts.project.as_str(), facts.service.as_str()), ("", "web"), "{odd}");
            let spec = format!(
                r#"{{"annotations":{{"nerdctl/name":"db","io.kubernetes.pod.name":{odd},"x":{odd}}}}}"#
            );
            assert_eq!(oci(spec.as_bytes()).unwrap().pod, "", "{odd}");
        }
    }

    #[test]
    fn podman_and_kubernetes() {
        let all = r#"[{"id":"aa"},{"id":"ab","names":["db"],
            "metadata":"{\"image-name\":\"docker.io/library/postgres:16\",\"x\":1}"}]"#;
        let facts = podman(all.as_bytes(), "ab").unwrap();
        assert_eq!(facts.name, "db");
        assert_eq!(facts.image, "docker.io/library/postgres:16");
        assert_eq!(podman(all.as_bytes(), "aa"), None);
        let cut = all.get(..all.len() - 1).unwrap();
        assert_eq!(podman(cut.as_bytes(), "ab"), None);
        assert_eq!(podman(format!("{all}]").as_bytes(), "ab"), None);
        let spec = r#"{"ociVersion":"1.0","annotations":{
            "io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-name":"dns-1",
            "io.kubernetes.cri.sandbox-namespace":"kube-system"}}"#;
        let facts = oci(spec.as_bytes()).unwrap();
        assert_eq!((facts.name.as_str(), facts.pod.as_str()), ("POD", "dns-1"));
        assert_eq!(facts.namespace, "kube-system");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut(&"é".repeat(200)).len(), 256);
        assert_eq!(cut(&format!("x{}", "é".repeat(200))).len(), 255);
    }
}
