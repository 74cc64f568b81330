//! From the will in CONNECT to the one the broker keeps (MQTT 5.0 §3.1.2.5).

use fieldgate_adapters::{
    class::Class,
    reading::{CONTENT_TYPE_LEN_MAX, USER_PROPERTIES_MAX},
};

use crate::{
    broker::message::Message, exchange, packet::connect::Will, property::Property, reason::ReasonCode,
    settings::Settings,
};

/// Copies a will, or says why it can never be published. Its device is not known yet.
pub(super) fn keep(will: &Will<'_>, settings: &Settings) -> Result<exchange::Will, ReasonCode> {
    let is_alarm = settings.is_alarm(will.topic);
    let mut kept = exchange::Will {
        message: Message {
            device: Box::default(),
            topic: will.topic.into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            payload_is_text: false,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Box::default(),
            expires_at: None,
        },
        expiry_secs: None,
        delay_secs: 0,
        class: if is_alarm { Class::Alarm } else { Class::Normal },
        is_local: settings.is_local(will.topic),
    };
    let mut pairs = Vec::new();
    for property in will.properties.iter() {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "no other property stands with a will"
        )]
        match property {
            Property::ContentType(text) => kept.message.content_type = Some(text.into()),
            Property::ResponseTopic(text) => kept.message.response_topic = Some(text.into()),
            Property::CorrelationData(data) => kept.message.correlation_data = Some(data.into()),
            Property::UserProperty((name, value)) => pairs.push((name.into(), value.into())),
            Property::MessageExpiryInterval(secs) => kept.expiry_secs = Some(secs),
            Property::WillDelayInterval(secs) => kept.delay_secs = secs,
            Property::PayloadFormatIndicator(is_text) => {
                if is_text && std::str::from_utf8(will.payload).is_err() {
                    return Err(ReasonCode::PayloadFormatInvalid);
                }
                kept.message.payload_is_text = is_text;
            }
            _ => {}
        }
    }
    let content_type_len = kept.message.content_type.as_ref().map_or(0, |text| text.len());
    if content_type_len > CONTENT_TYPE_LEN_MAX || pairs.len() > USER_PROPERTIES_MAX {
        return Err(ReasonCode::QuotaExceeded);
    }
    kept.message.user_properties = pairs.into();
    Ok(kept)
}
