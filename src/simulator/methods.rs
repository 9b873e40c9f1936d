//! The vendor's methods: `SendCNR` and `GetParameterValues`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::device::Phase;
use super::fleet::Fleet;
use super::life::World;
use super::reply::Reply;
use super::semantics::HttpStatus;
use super::table::{Row, text};

impl World {
    /// `SendCNR`: the request and the answer of success are documented, the codes of failure inferred.
    pub(crate) fn send_cnr(
        &mut self,
        body: &[u8],
        newcomers: Option<&Fleet>,
        now: Timestamp,
    ) -> Reply {
        let index = match self.device_asked_for(body, newcomers, now) {
            Ok((index, _)) => index,
            Err(reply) => return reply,
        };
        if !self.devices[index].is_reachable(now) {
            return self.method(
                503,
                "Connection request failed: device is not reachable",
                None,
            );
        }
        self.request_session(index, now);
        self.method(200, "OK", None)
    }

    /// `GetParameterValues`: that it exists and takes paths is documented; path, body and answer are inferred.
    ///
    /// Body: `{"search_options": {"cpe_id": …}, "parameters": [path, …]}`, where a path that ends in a dot is partial.
    /// Answer: `{"result": {"code": 200, "message": "OK", "values": {path: value, …}}}`.
    pub(crate) fn get_parameter_values(
        &mut self,
        body: &[u8],
        newcomers: Option<&Fleet>,
        now: Timestamp,
    ) -> Reply {
        const KNOWN: [&str; 2] = [
            "Device.DeviceInfo.SoftwareVersion",
            "InternetGatewayDevice.DeviceInfo.SoftwareVersion",
        ];
        let (index, body) = match self.device_asked_for(body, newcomers, now) {
            Ok(found) => found,
            Err(reply) => return reply,
        };
        let live = &self.devices[index];
        let is_flashing = match live.phase {
            Phase::Rebooting(until) if live.device.reports_before_flashing => {
                let half = live.device.reboot / 2;
                if until.duration_since(now) <= half {
                    return self.method(404, "Device is not connected", None);
                }
                true
            }
            Phase::Idle | Phase::Gone | Phase::Downloading(_) | Phase::Rebooting(_) => false,
        };
        if !is_flashing && !live.is_reachable(now) {
            return self.method(
                503,
                "Connection request failed: device is not reachable",
                None,
            );
        }
        let asked = body
            .get("parameters")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let values: Row = asked
            .flat_map(|path| {
                KNOWN.iter().filter(move |name| {
                    **name == path || (path.ends_with('.') && name.starts_with(path))
                })
            })
            .map(|name| ((*name).to_owned(), json!(live.device.version)))
            .collect();
        if values.is_empty() {
            return self.method(
                400,
                "FaultCode 9005. FaultString: Invalid parameter name",
                None,
            );
        }
        self.method(200, "OK", Some(values))
    }

    /// The device that a method's body names, made on the spot if that is wished, and the body.
    fn device_asked_for(
        &mut self,
        body: &[u8],
        newcomers: Option<&Fleet>,
        now: Timestamp,
    ) -> Result<(usize, Row), Reply> {
        let body: Row = serde_json::from_slice(body).unwrap_or_default();
        let asked = body
            .get("search_options")
            .and_then(Value::as_object)
            .and_then(|options| text(options, "cpe_id"));
        let Some(cpe_id) = asked else {
            return Err(self.method(400, "search_options.cpe_id is missing", None));
        };
        if self.find(cpe_id).is_none()
            && let Some(fleet) = newcomers
        {
            let device = fleet.device(cpe_id, now);
            self.add(device, now);
        }
        match self.find(cpe_id) {
            Some(index) => Ok((index, body)),
            None => Err(self.method(404, "Device not found", None)),
        }
    }

    /// The envelope of the vendor's methods (documented for `SendCNR`).
    fn method(&self, code: u16, message: &str, values: Option<Row>) -> Reply {
        let status = match self.semantics.http_status {
            HttpStatus::Always200 => 200,
            HttpStatus::SameAsCode => code,
        };
        let mut result = json!({"code": code, "message": message});
        if let Some(values) = values {
            result["values"] = Value::Object(values);
        }
        Reply::json(status, &json!({"result": result}))
    }
}
