//! What runtimes say of a container, in their files or by their API: its name, its image, and the labels
//! that Docker Compose and Kubernetes give it. JSON of which only this is read.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

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
    labels: Option<HashMap<String, Value>>,
}

/// Docker's config.v2.json, or its API's answer to `GET /containers/ID/json`, which Podman gives too.
pub(super) fn docker(bytes: &[u8], id: &str) -> Option<Facts> {
    let docker: Docker = serde_json::from_slice(bytes).ok()?;
    // The API finds a container by its name as well.
    if docker.id != id {
        return None;
    }
    let labels = docker.config.labels.unwrap_or_default();
    let label = |name: &str| text(labels.get(name));
    let facts = Facts {
        name: cut(docker.name.strip_prefix('/').unwrap_or(&docker.name)),
        image: cut(&docker.config.image),
        project: label("com.docker.compose.project"),
        service: label("com.docker.compose.service"),
        // Of Kubernetes with Docker below it.
        namespace: label("io.kubernetes.pod.namespace"),
        pod: label("io.kubernetes.pod.name"),
        container: label("io.kubernetes.container.name"),
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
    let all: Vec<Podman> = serde_json::from_slice(bytes).ok()?;
    let container = all.into_iter().find(|container| container.id == id)?;
    let metadata: PodmanMetadata = serde_json::from_str(&container.metadata).unwrap_or_default();
    let name = container.names.unwrap_or_default().into_iter().next()?;
    Some(Facts { name: cut(&name), image: cut(&metadata.image), ..Facts::default() })
}

#[derive(Deserialize)]
struct Oci {
    annotations: HashMap<String, Value>,
}

/// The OCI runtime's config.json, with the annotations of containerd's and CRI-O's Kubernetes interface or
/// of nerdctl.
pub(super) fn oci(bytes: &[u8]) -> Option<Facts> {
    let oci: Oci = serde_json::from_slice(bytes).ok()?;
    let first = |names: &[&str]| {
        names.iter().map(|name| text(oci.annotations.get(*name))).find(|text| !text.is_empty())
    };
    let get = |names: &[&str]| first(names).unwrap_or_default();
    let mut container = get(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]);
    let kind = get(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
    if kind == "sandbox" {
        // As cAdvisor calls what holds a pod's network.
        container = "POD".into();
    }
    let name = first(&["nerdctl/name"]).unwrap_or_else(|| container.clone());
    let facts = Facts {
        name,
        image: get(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]),
        namespace: get(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
        pod: get(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        container,
        ..Facts::default()
    };
    (!facts.name.is_empty()).then_some(facts)
}

fn text(value: Option<&Value>) -> String {
    cut(value.and_then(Value::as_str).unwrap_or_default())
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
    fn podman_and_kubernetes() {
        let all = r#"[{"id":"aa"},{"id":"ab","names":["db"],
            "metadata":"{\"image-name\":\"docker.io/library/postgres:16\",\"x\":1}"}]"#;
        let facts = podman(all.as_bytes(), "ab").unwrap();
        assert_eq!(facts.name, "db");
        assert_eq!(facts.image, "docker.io/library/postgres:16");
        assert_eq!(podman(all.as_bytes(), "aa"), None);
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
