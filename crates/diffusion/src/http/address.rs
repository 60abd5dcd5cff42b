//! Which addresses are asked: the server's own, and the links that it answers with.
//!
//! A link comes from a stranger and is followed from inside the user's network, so it must not lead into that network:
//! not by its scheme, not by an address in it, not by a name that resolves to one, not by a redirect. A server that is
//! itself local may link to local addresses, and any server to its own host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use reqwest::dns::{Name, Resolve, Resolving};
use url::{Host, Url};

/// The server of a job.
#[derive(Clone, Debug)]
pub(super) struct Base {
    url: Url,
    local: bool,
}

impl Base {
    /// Reads `base_url`; the error says what is wrong with it and repeats nothing of it that could be secret.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, String> {
        let url = Url::parse(text.trim()).map_err(|error| format!("not an address ({error}): give https://host/v1"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("`{}://` is not read; give an https:// address", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err("it holds a user name, `?` or `#`; give the bare address, and a key by `key_env`".into());
        }
        let Some(host) = url.host() else { return Err("it names no host".into()) };
        if url.scheme() == "http" && !is_this_machine(&host) && !allow_http {
            return Err(format!(
                "`http://` to {host} would send key and images unencrypted; use https://, or set `allow_http: true`"
            ));
        }
        let local = is_local(&host);
        Ok(Self { url, local })
    }

    /// The address of one call, `generations` or `edits`.
    pub fn images(&self, call: &str) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["images", call]);
        }
        url
    }

    /// Whether the server is on this machine or in a private network, by its address alone.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The address of an image that an answer links to.
    pub fn link(&self, link: &str) -> Result<Url, String> {
        let url = self.url.join(link.trim()).map_err(|error| format!("a link that is no address ({error})"))?;
        self.check(&url)?;
        Ok(url)
    }

    /// Where a redirect from `from` leads: to the same scheme, or from `http` up to `https`.
    pub fn redirect(&self, from: &Url, location: &str) -> Result<Url, String> {
        let url = from.join(location).map_err(|error| format!("a redirect to what is no address ({error})"))?;
        if url.scheme() != from.scheme() && url.scheme() != "https" {
            return Err(format!(
                "a redirect from `{}://` to `{}://`, which is not followed",
                from.scheme(),
                url.scheme()
            ));
        }
        self.check(&url)?;
        Ok(url)
    }

    fn check(&self, url: &Url) -> Result<(), String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("a link to `{}:`; only http:// and https:// are followed", url.scheme()));
        }
        let Some(host) = url.host() else { return Err("a link without a host".into()) };
        match self.may_be_local(url.host_str().unwrap_or_default()) || !is_local(&host) {
            true => Ok(()),
            false => Err(format!("a link to {host}, a private address, which is not followed")),
        }
    }

    fn may_be_local(&self, host: &str) -> bool {
        self.local || Some(host) == self.url.host_str()
    }
}

/// Resolves the names of links and leaves out addresses of the user's own network.
impl Resolve for Base {
    fn resolve(&self, name: Name) -> Resolving {
        let any = self.may_be_local(name.as_str());
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let host = name.clone();
            let found = tokio::task::spawn_blocking(move || (host.as_str(), 0).to_socket_addrs()).await??;
            let addresses: Vec<SocketAddr> = found.filter(|address| any || !is_private(address.ip())).collect();
            match addresses.is_empty() {
                true => {
                    Err(io::Error::other(format!("{name} leads to a private address, which is not followed")).into())
                }
                false => Ok(Box::new(addresses.into_iter()) as Box<_>),
            }
        })
    }
}

/// An address for messages: without the query, which may hold a signature.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn is_this_machine(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
}

fn is_local(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(ip) => is_private((*ip).into()),
        Host::Ipv6(ip) => is_private((*ip).into()),
    }
}

/// RFC 6761: these names never leave the machine.
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether an address is anything but a public one (IANA's registries of special-purpose addresses).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (18..20).contains(&b);
    let protocols = a == 192 && b == 0 && c == 0;
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || shared
        || benchmark
        || protocols
        || a == 0
        || a >= 224
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let words = ip.segments();
    let embedded = |high: u16, low: u16| is_private_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match words {
        // IPv4 in IPv6: mapped and compatible, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Only 2000::/3 is public; Teredo and the documentation's addresses in it are not.
        [first, second, ..] => first & 0xe000 != 0x2000 || (first == 0x2001 && (second == 0 || second == 0xdb8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> Base {
        Base::parse(text, true).unwrap()
    }

    #[test]
    fn plain_http_is_for_this_machine_unless_it_is_allowed() {
        for fine in ["https://api.example.com/v1", "http://localhost:8080", "http://127.0.0.1:1/v1", "http://[::1]/"] {
            assert!(Base::parse(fine, false).is_ok(), "{fine}");
        }
        for other in ["http://api.example.com", "http://192.168.1.5:8080", "http://localhost.example.com"] {
            assert!(Base::parse(other, false).unwrap_err().contains("allow_http"), "{other}");
            assert!(Base::parse(other, true).is_ok(), "{other}");
        }
    }

    #[test]
    fn addresses_with_secrets_in_them_are_refused_and_not_repeated() {
        for address in ["https://me:secret@a.com/v1", "https://secret@a.com", "https://a.com/v1?key=secret"] {
            let said = Base::parse(address, false).unwrap_err();
            assert!(said.contains("key_env") && !said.contains("secret"), "{said}");
        }
        assert!(Base::parse("ftp://a.com", true).unwrap_err().contains("`ftp://`"));
        assert!(Base::parse("api.example.com", true).unwrap_err().contains("https://host/v1"));
    }

    #[test]
    fn calls_are_made_below_the_base() {
        for text in ["https://a.com/v1", "https://a.com/v1/"] {
            assert_eq!(base(text).images("edits").as_str(), "https://a.com/v1/images/edits");
        }
        assert_eq!(base("http://localhost:80").images("generations").as_str(), "http://localhost/images/generations");
    }

    #[test]
    fn links_into_the_network_are_not_followed() {
        let public = base("https://api.example.com/v1");
        let links = [
            "http://127.0.0.1/x",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://localhost:5/",
            "http://a.localhost/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://192.168.0.1/",
            "http://100.64.0.1/",
            "http://[::1]/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[64:ff9b::a00:1]/",
            "http://[2002:a00:1::]/",
            "http://0.0.0.0/",
            "http://172.16.3.4/",
        ];
        for link in links {
            let said = public.link(link).unwrap_err();
            assert!(said.contains("private address"), "{link}: {said}");
        }
        for link in ["file:///etc/passwd", "ftp://a.com/x", "data:image/png;base64,AA", "gopher://a.com"] {
            assert!(public.link(link).unwrap_err().contains("only http:// and https://"), "{link}");
        }
        for link in ["https://cdn.example.net/x?sig=1", "http://8.8.8.8/x", "https://[2606:4700::1]/", "/images/1.png"]
        {
            assert!(public.link(link).is_ok(), "{link}");
        }
    }

    #[test]
    fn a_local_server_links_to_local_addresses_and_any_server_to_itself() {
        assert!(base("http://localhost:8080/v1").link("http://127.0.0.1:9000/1.png").is_ok());
        assert!(base("http://192.168.1.5/v1").link("http://192.168.1.6/1.png").is_ok());
        assert!(base("http://gpu.lan/v1").may_be_local("gpu.lan"));
        assert!(!base("http://gpu.lan/v1").may_be_local("router.lan"));
    }

    #[test]
    fn redirects_keep_their_scheme_or_become_encrypted() {
        let public = base("https://api.example.com/v1");
        let from = |text: &str| Url::parse(text).unwrap();
        assert!(public.redirect(&from("http://cdn.com/a"), "https://cdn.com/b").is_ok());
        assert_eq!(public.redirect(&from("https://cdn.com/a"), "/b").unwrap().as_str(), "https://cdn.com/b");
        for location in ["http://cdn.com/b", "file:///etc/passwd", "ftp://cdn.com/b"] {
            assert!(public.redirect(&from("https://cdn.com/a"), location).unwrap_err().contains("not followed"));
        }
        assert!(public.redirect(&from("https://cdn.com/a"), "https://10.0.0.1/").unwrap_err().contains("private"));
    }

    #[test]
    fn a_name_that_resolves_to_a_private_address_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let resolve =
            |base: &Base| runtime.block_on(base.resolve("localhost".parse().unwrap())).map(|found| found.count());
        let said = resolve(&base("https://api.example.com")).unwrap_err().to_string();
        assert!(said.contains("localhost leads to a private address"), "{said}");
        assert!(resolve(&base("http://127.0.0.1:1")).unwrap() > 0);
    }

    #[test]
    fn messages_show_no_query() {
        let url = Url::parse("https://u:p@cdn.com/a.png?sig=secret#x").unwrap();
        assert_eq!(shown(&url), "https://cdn.com/a.png");
    }
}
