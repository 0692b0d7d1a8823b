//! Nasty documents against the command line: each is refused with a code and nothing of it is seen, or it passes clean.
//!
//! Every document carries a canary, a word that identifies (`Kanarienvogel`), at a place no pack may let through. Whatever the outcome, the
//! canary may be in no byte of stdout, stderr or the output, however encoded. What passes the reversible pack must come back.
//! A case is one line. Fakes that leak, that refuse all and that let all pass show first that the table would notice.

mod support;

use support::json;
use support::leak::{SPELLING, every_way};
use support::product::{Outcome, PACKS, PLUGGED, Product, REVERSIBLE, plugged};
use support::roundtrip::{identity_fault, shape_faults};
use support::schema::Schema;

/// What is searched for, folded.
const CANARY: &str = "kanarienvogel";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expect {
    /// Exit 1, a line with a code, no output.
    Refused,
    /// Exit 0, output without the canary.
    Passes,
    /// Either of the two: the design leaves it open, or it is a pack's to decide.
    Either,
}
use Expect::{Either, Passes, Refused};

struct Case {
    name: String,
    expect: Expect,
    input: Vec<u8>,
}

/// Documents as they are.
const DOCUMENTS: &[(&str, Expect, &str)] = &[
    ("nothing", Refused, ""),
    ("white space", Refused, " \n\t "),
    ("null", Refused, "null"),
    ("a number", Refused, "4711"),
    ("a string", Refused, r#""Kanarienvogel""#),
    ("an array", Refused, r#"["Kanarienvogel"]"#),
    ("an empty object", Refused, "{}"),
    ("an array of patients", Refused, r#"[{"resourceType":"Patient","name":[{"family":"Kanarienvogel"}]}]"#),
    ("no resourceType", Refused, r#"{"name":[{"family":"Kanarienvogel"}]}"#),
    ("resourceType last", Passes, r#"{"name":[{"family":"Kanarienvogel"}],"gender":"male","resourceType":"Patient"}"#),
    (
        "resourceType twice",
        Refused,
        r#"{"resourceType":"Patient","name":[{"family":"Kanarienvogel"}],"resourceType":"Basic"}"#,
    ),
    (
        "resourceType twice, once escaped",
        Refused,
        r#"{"resourceType":"Patient","name":[{"family":"Kanarienvogel"}],"resourceTyp\u0065":"Patient"}"#,
    ),
    ("resourceType unknown", Refused, r#"{"resourceType":"Kanarienvogel","name":[{"family":"Kanarienvogel"}]}"#),
    ("resourceType of a datatype", Refused, r#"{"resourceType":"HumanName","family":"Kanarienvogel"}"#),
    (
        "resourceType abstract",
        Refused,
        r#"{"resourceType":"DomainResource","text":{"status":"generated","div":"<div>Kanarienvogel</div>"}}"#,
    ),
    ("resourceType in small letters", Refused, r#"{"resourceType":"patient","name":[{"family":"Kanarienvogel"}]}"#),
    ("resourceType null", Refused, r#"{"resourceType":null,"name":[{"family":"Kanarienvogel"}]}"#),
    ("resourceType a number", Refused, r#"{"resourceType":1,"name":[{"family":"Kanarienvogel"}]}"#),
    ("resourceType an array", Refused, r#"{"resourceType":["Patient"],"name":[{"family":"Kanarienvogel"}]}"#),
    ("resourceType an object", Refused, r#"{"resourceType":{"Kanarienvogel":1}}"#),
    ("resourceType with a space", Refused, r#"{"resourceType ":"Patient","name":[{"family":"Kanarienvogel"}]}"#),
    ("resourceType in other letters", Refused, r#"{"ResourceType":"Patient","name":[{"family":"Kanarienvogel"}]}"#),
    (
        "resourceType with an escaped value",
        Either,
        r#"{"resourceType":"P\u0061tient","name":[{"family":"Kanarienvogel"}]}"#,
    ),
    ("resourceType of a newer release", Refused, r#"{"resourceType":"ActorDefinition","name":"Kanarienvogel"}"#),
    ("bytes after the end", Refused, r#"{"resourceType":"Patient","gender":"male"} Kanarienvogel"#),
    ("a comma after the end", Refused, r#"{"resourceType":"Patient","name":[{"family":"Kanarienvogel"}]},"#),
    ("NUL after the end", Refused, "{\"resourceType\":\"Patient\",\"name\":[{\"family\":\"Kanarienvogel\"}]}\0"),
    (
        "two documents",
        Refused,
        "{\"resourceType\":\"Patient\",\"gender\":\"male\"}\n{\"resourceType\":\"Patient\",\"name\":[{\"family\":\"Kanarienvogel\"}]}",
    ),
    (
        "white space around",
        Passes,
        "\r\n\t {\"resourceType\":\"Patient\",\"name\":[{\"family\":\"Kanarienvogel\"}],\"gender\":\"male\"} \r\n\n",
    ),
    (
        "a byte order mark",
        Either,
        "\u{feff}{\"resourceType\":\"Patient\",\"name\":[{\"family\":\"Kanarienvogel\"}],\"gender\":\"male\"}",
    ),
    ("a comment", Refused, "{\"resourceType\":\"Patient\"/*Kanarienvogel*/}"),
    ("a line comment", Refused, "// Kanarienvogel\n{\"resourceType\":\"Patient\"}"),
    ("single quotes", Refused, "{'resourceType':'Patient','gender':'Kanarienvogel'}"),
    ("names without quotes", Refused, "{resourceType:\"Patient\",name:[{family:\"Kanarienvogel\"}]}"),
    ("XML", Refused, "<Patient xmlns=\"http://hl7.org/fhir\"><name><family value=\"Kanarienvogel\"/></name></Patient>"),
    (
        "a Bundle's entry without resourceType",
        Refused,
        r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"name":[{"family":"Kanarienvogel"}]}}]}"#,
    ),
    (
        "a Bundle's entry of an unknown type",
        Refused,
        r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Kanarienvogel"}}]}"#,
    ),
    (
        "a Bundle's entry that is text",
        Refused,
        r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":"Kanarienvogel"}]}"#,
    ),
    (
        "a Bundle's entries that are no array",
        Either,
        r#"{"resourceType":"Bundle","type":"collection","entry":{"resource":{"resourceType":"Patient","name":[{"family":"Kanarienvogel"}]}}}"#,
    ),
    (
        "a Bundle's second entry bad",
        Refused,
        r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Patient","gender":"male"}},{"resource":{"resourceType":"Patient","kanarienvogel":1}}]}"#,
    ),
    (
        "a Bundle with a late type",
        Passes,
        r#"{"entry":[{"resource":{"name":[{"family":"Kanarienvogel"}],"gender":"male","resourceType":"Patient"}}],"type":"collection","resourceType":"Bundle"}"#,
    ),
    (
        "fullUrl",
        Passes,
        r#"{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"http://ehr.example/fhir/Patient/Kanarienvogel","resource":{"resourceType":"Patient","gender":"male","id":"Kanarienvogel"}}]}"#,
    ),
    (
        "request.url",
        Passes,
        r#"{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Patient","gender":"male","id":"Kanarienvogel"},"request":{"method":"PUT","url":"Patient/Kanarienvogel"}}]}"#,
    ),
    (
        "request.url conditional",
        Either,
        r#"{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Patient","gender":"male"},"request":{"method":"PUT","url":"Patient?identifier=http://h.example/mrn|Kanarienvogel"}}]}"#,
    ),
    (
        "request.url by name",
        Either,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Patient?name=Kanarienvogel"}}]}"#,
    ),
    (
        "request.url percent-encoded",
        Either,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Patient?identifier=%4Banarienvogel"}}]}"#,
    ),
    (
        "request.url chained",
        Either,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Observation?subject:Patient.name=Kanarienvogel"}}]}"#,
    ),
    (
        "request.url of a compartment",
        Either,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Patient/Kanarienvogel/$everything?_since=2020-01-01"}}]}"#,
    ),
    (
        "request.url foreign",
        Either,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"https://evil.example/Kanarienvogel"}}]}"#,
    ),
    (
        "request.url upward",
        Either,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Patient/../../Kanarienvogel"}}]}"#,
    ),
    (
        "ifNoneExist",
        Either,
        r#"{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Patient","gender":"male"},"request":{"method":"POST","url":"Patient","ifNoneExist":"identifier=http://h.example/mrn|Kanarienvogel"}}]}"#,
    ),
    (
        "ifNoneExist by name",
        Either,
        r#"{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Patient","gender":"male"},"request":{"method":"POST","url":"Patient","ifNoneExist":"family=Kanarienvogel&birthdate=1965-01-13"}}]}"#,
    ),
    (
        "response.location",
        Either,
        r#"{"resourceType":"Bundle","type":"transaction-response","entry":[{"response":{"status":"201 Created","location":"Patient/Kanarienvogel/_history/1"}}]}"#,
    ),
    (
        "response.status",
        Either,
        r#"{"resourceType":"Bundle","type":"transaction-response","entry":[{"response":{"status":"201","outcome":{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid","diagnostics":"Kanarienvogel not known"}]}}}]}"#,
    ),
    (
        "link.url",
        Either,
        r#"{"resourceType":"Bundle","type":"searchset","link":[{"relation":"self","url":"http://ehr.example/fhir/Patient?name=Kanarienvogel"}]}"#,
    ),
    (
        "Bundle.identifier",
        Either,
        r#"{"resourceType":"Bundle","type":"document","identifier":{"system":"urn:ietf:rfc:3986","value":"urn:Kanarienvogel"}}"#,
    ),
    (
        "Bundle.signature",
        Either,
        r#"{"resourceType":"Bundle","type":"collection","signature":{"type":[{"code":"x"}],"when":"2020-01-01T00:00:00Z","who":{"display":"Kanarienvogel"},"data":"S2FuYXJpZW52b2dlbA=="}}"#,
    ),
    (
        "Parameters with text",
        Either,
        r#"{"resourceType":"Parameters","parameter":[{"name":"x","valueString":"Kanarienvogel"}]}"#,
    ),
    (
        "Parameters with parts",
        Either,
        r#"{"resourceType":"Parameters","parameter":[{"name":"x","part":[{"name":"y","part":[{"name":"z","valueHumanName":{"family":"Kanarienvogel"}}]}]}]}"#,
    ),
    (
        "Parameters with a resource",
        Either,
        r#"{"resourceType":"Parameters","parameter":[{"name":"x","resource":{"resourceType":"Patient","gender":"male","name":[{"family":"Kanarienvogel"}]}}]}"#,
    ),
    (
        "Parameters with a resource in a part",
        Either,
        r#"{"resourceType":"Parameters","parameter":[{"name":"x","part":[{"name":"y","resource":{"gender":"male","name":[{"family":"Kanarienvogel"}],"resourceType":"Patient"}}]}]}"#,
    ),
    (
        "Parameters with a bad resource",
        Refused,
        r#"{"resourceType":"Parameters","parameter":[{"name":"x","resource":{"resourceType":"Patient","kanarienvogel":1}}]}"#,
    ),
    (
        "Parameters with two values",
        Either,
        r#"{"resourceType":"Parameters","parameter":[{"name":"x","valueBoolean":true,"valueString":"Kanarienvogel"}]}"#,
    ),
    (
        "Binary",
        Either,
        r#"{"resourceType":"Binary","contentType":"text/plain","securityContext":{"reference":"Patient/Kanarienvogel"},"data":"S2FuYXJpZW52b2dlbA=="}"#,
    ),
    (
        "OperationOutcome",
        Either,
        r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid","diagnostics":"Kanarienvogel","details":{"text":"Kanarienvogel"}}]}"#,
    ),
    (
        "AuditEvent with a query",
        Either,
        r#"{"resourceType":"AuditEvent","type":{"code":"rest"},"recorded":"2020-01-01T00:00:00Z","agent":[{"requestor":true,"name":"Kanarienvogel","altId":"Kanarienvogel","network":{"address":"Kanarienvogel"}}],"source":{"observer":{"display":"Kanarienvogel"}},"entity":[{"query":"UGF0aWVudD9uYW1lPUthbmFyaWVudm9nZWw=","name":"Kanarienvogel"}]}"#,
    ),
    (
        "an Observation's free text",
        Passes,
        r#"{"resourceType":"Observation","status":"final","code":{"text":"Kanarienvogel"},"valueString":"Kanarienvogel","note":[{"text":"Kanarienvogel","authorString":"Kanarienvogel"}],"subject":{"reference":"Patient/Kanarienvogel","display":"Kanarienvogel"}}"#,
    ),
    (
        "an Observation with two values",
        Either,
        r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"8302-2"}]},"valueInteger":1,"valueString":"Kanarienvogel"}"#,
    ),
    (
        "an answer in a QuestionnaireResponse",
        Passes,
        r#"{"resourceType":"QuestionnaireResponse","status":"completed","item":[{"linkId":"1","item":[{"linkId":"1.1","answer":[{"valueString":"Kanarienvogel","item":[{"linkId":"1.1.1","answer":[{"valueReference":{"display":"Kanarienvogel"}}]}]}]}]}]}"#,
    ),
    (
        "a Device's serial number",
        Passes,
        r#"{"resourceType":"Device","serialNumber":"Kanarienvogel","distinctIdentifier":"Kanarienvogel","deviceName":[{"name":"Kanarienvogel's watch","type":"user-friendly-name"}],"url":"http://h.example/Kanarienvogel"}"#,
    ),
    (
        "a Coverage's numbers",
        Passes,
        r#"{"resourceType":"Coverage","status":"active","subscriberId":"Kanarienvogel","dependent":"Kanarienvogel","beneficiary":{"reference":"Patient/Kanarienvogel"},"payor":[{"display":"Kanarienvogel"}]}"#,
    ),
    (
        "contained",
        Passes,
        r##"{"resourceType":"Claim","status":"active","use":"claim","type":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/claim-type","code":"oral"}]},"created":"2020-01-01","patient":{"reference":"#p"},"provider":{"reference":"Organization/Kanarienvogel"},"priority":{"coding":[{"code":"normal"}]},"insurance":[{"sequence":1,"focal":true,"coverage":{"display":"Kanarienvogel"}}],"contained":[{"resourceType":"Patient","id":"p","gender":"male","name":[{"family":"Kanarienvogel"}]}]}"##,
    ),
    (
        "contained without resourceType",
        Refused,
        r#"{"resourceType":"Basic","contained":[{"id":"p","name":[{"family":"Kanarienvogel"}]}],"code":{"text":"x"}}"#,
    ),
    (
        "contained in contained",
        Either,
        r#"{"resourceType":"Basic","code":{"coding":[{"system":"http://loinc.org","code":"1"}]},"contained":[{"resourceType":"Basic","id":"a","contained":[{"resourceType":"Patient","id":"p","gender":"male","name":[{"family":"Kanarienvogel"}]}]}]}"#,
    ),
    (
        "contained that is no array",
        Either,
        r#"{"resourceType":"Basic","contained":{"resourceType":"Patient","id":"p","name":[{"family":"Kanarienvogel"}]}}"#,
    ),
];

/// Members of a Patient with `"gender":"male"` before them.
const MEMBERS: &[(&str, Expect, &str)] = &[
    (
        "a name",
        Passes,
        r#""name":[{"use":"official","family":"Kanarienvogel","given":["Kanarienvogel","B"],"prefix":["Kanarienvogel"]}]"#,
    ),
    ("an escaped name of a member", Passes, r#""n\u0061me":[{"f\u0061mily":"Kanarienvogel"}]"#),
    ("an escaped value", Passes, r#""name":[{"family":"\u004banarienvogel"}]"#),
    ("a member twice", Refused, r#""name":[{"family":"Kanarienvogel"}],"name":[{"family":"x"}]"#),
    ("a member twice, once escaped", Refused, r#""name":[{"family":"Kanarienvogel"}],"n\u0061me":[{"family":"x"}]"#),
    ("a kept member twice", Refused, r#""name":[{"family":"Kanarienvogel"}],"gender":"female""#),
    ("an inner member twice", Refused, r#""name":[{"family":"x","family":"Kanarienvogel"}]"#),
    (
        "a twin twice",
        Refused,
        r#""birthDate":"1965-01-13","_birthDate":{"id":"a"},"_birthDate":{"id":"Kanarienvogel"}"#,
    ),
    ("a capital letter", Refused, r#""Name":[{"family":"Kanarienvogel"}]"#),
    ("capital letters", Refused, r#""NAME":[{"family":"Kanarienvogel"}]"#),
    ("an inner capital letter", Refused, r#""contact":[{"name":{"Family":"Kanarienvogel"}}]"#),
    ("a small letter", Refused, r#""birthdate":"1965-01-13","name":[{"family":"Kanarienvogel"}]"#),
    ("a long s", Refused, r#""addre\u017f\u017f":[{"city":"Kanarienvogel"}]"#),
    ("an unknown member", Refused, r#""kanarienvogel":"Kanarienvogel""#),
    ("an unknown inner member", Refused, r#""contact":[{"kanarienvogel":"Kanarienvogel"}]"#),
    (
        "an unknown member of a narrative",
        Refused,
        r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>","kanarienvogel":1}"#,
    ),
    ("an unknown member with an object", Refused, r#""kanarienvogel":{"a":[{"b":"Kanarienvogel"}]}"#),
    ("an empty member name", Refused, r#""":"Kanarienvogel""#),
    ("a member named _", Refused, r#""_":{"id":"Kanarienvogel"}"#),
    ("__proto__", Refused, r#""__proto__":{"name":"Kanarienvogel"}"#),
    ("a member name with NUL", Refused, r#""name\u0000":[{"family":"Kanarienvogel"}]"#),
    ("a member name with a space", Refused, r#""name ":[{"family":"Kanarienvogel"}]"#),
    ("a member of another type", Refused, r#""valueString":"Kanarienvogel""#),
    (
        "resourceType where there is no resource",
        Refused,
        r#""contact":[{"resourceType":"Patient","name":{"family":"Kanarienvogel"}}]"#,
    ),
    ("fhir_comments", Refused, r#""fhir_comments":["Kanarienvogel"]"#),
    ("a name that is text", Either, r#""name":"Kanarienvogel""#),
    ("a name that is an object", Either, r#""name":{"family":"Kanarienvogel"}"#),
    ("a name that is an array of text", Either, r#""name":["Kanarienvogel"]"#),
    ("a name that is an array of arrays", Either, r#""name":[[{"family":"Kanarienvogel"}]]"#),
    ("a family name that is an object", Either, r#""name":[{"family":{"x":"Kanarienvogel"}}]"#),
    ("a family name that is an array", Either, r#""name":[{"family":["Kanarienvogel"]}]"#),
    ("a given name that is text", Either, r#""name":[{"given":"Kanarienvogel"}]"#),
    ("a kept leaf that is an object", Refused, r#""multipleBirthInteger":{"x":"Kanarienvogel"}"#),
    ("a kept leaf that is an array", Either, r#""multipleBirthInteger":["Kanarienvogel"]"#),
    ("a boolean that is text", Either, r#""active":"Kanarienvogel""#),
    ("an integer that is text", Either, r#""multipleBirthInteger":"Kanarienvogel""#),
    ("a birth date that is text", Either, r#""birthDate":"Kanarienvogel""#),
    ("a birth date with text behind", Either, r#""birthDate":"1965-01-13 Kanarienvogel""#),
    ("a birth date that is a number", Either, r#""birthDate":19650113,"name":[{"family":"Kanarienvogel"}]"#),
    ("a birth date that is an object", Either, r#""birthDate":{"value":"Kanarienvogel"}"#),
    ("a birth date that is none", Either, r#""birthDate":"1965-02-30","name":[{"family":"Kanarienvogel"}]"#),
    ("a birth date in month 13", Either, r#""birthDate":"1965-13-01","name":[{"family":"Kanarienvogel"}]"#),
    ("a birth date in year 0", Either, r#""birthDate":"0000-01-01","name":[{"family":"Kanarienvogel"}]"#),
    ("a birth date before the end of time", Either, r#""birthDate":"9999-12-30","name":[{"family":"Kanarienvogel"}]"#),
    ("a death without zone", Either, r#""deceasedDateTime":"2020-01-01T10:00:00","name":[{"family":"Kanarienvogel"}]"#),
    (
        "a death in second 60",
        Either,
        r#""deceasedDateTime":"2016-12-31T23:59:60Z","name":[{"family":"Kanarienvogel"}]"#,
    ),
    ("a null member", Either, r#""name":null,"address":[{"city":"Kanarienvogel"}]"#),
    ("null in an array", Either, r#""name":[{"given":[null,"Kanarienvogel"]}]"#),
    (
        "null with a twin",
        Passes,
        r#""name":[{"given":[null,"Kanarienvogel"],"_given":[{"extension":[{"url":"http://h.example/x","valueString":"Kanarienvogel"}]},null]}]"#,
    ),
    (
        "twins of other lengths",
        Either,
        r#""name":[{"given":["Kanarienvogel"],"_given":[null,{"id":"Kanarienvogel"}]}]"#,
    ),
    (
        "a twin alone",
        Passes,
        r#""_birthDate":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]},"name":[{"family":"Kanarienvogel"}]"#,
    ),
    (
        "a twin with identity",
        Passes,
        r#""birthDate":"1965-01-13","_birthDate":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/patient-birthTime","valueDateTime":"1965-01-13T10:00:00Z"},{"url":"http://h.example/x","valueString":"Kanarienvogel"}]}"#,
    ),
    (
        "a twin of a kept leaf",
        Passes,
        r#""_gender":{"extension":[{"url":"http://h.example/x","valueString":"Kanarienvogel"}]}"#,
    ),
    ("a twin that is text", Either, r#""_gender":"Kanarienvogel""#),
    ("a twin with a value", Refused, r#""_gender":{"value":"Kanarienvogel"}"#),
    ("a twin of a twin", Refused, r#""__gender":{"id":"Kanarienvogel"}"#),
    (
        "a twin of a complex element",
        Either,
        r#""_maritalStatus":{"extension":[{"url":"http://h.example/x","valueString":"Kanarienvogel"}]}"#,
    ),
    (
        "a twin of resourceType",
        Refused,
        r#""_resourceType":{"extension":[{"url":"http://h.example/x","valueString":"Kanarienvogel"}]}"#,
    ),
    ("an unknown extension", Passes, r#""extension":[{"url":"http://h.example/x","valueString":"Kanarienvogel"}]"#),
    (
        "an extension with its url last",
        Passes,
        r#""extension":[{"valueAddress":{"city":"Kanarienvogel"},"url":"http://h.example/x"}]"#,
    ),
    (
        "extensions in extensions",
        Passes,
        r#""extension":[{"url":"http://h.example/x","extension":[{"url":"a","extension":[{"url":"b","valueHumanName":{"family":"Kanarienvogel"}}]}]}]"#,
    ),
    (
        "an extension of an extension's value",
        Either,
        r#""extension":[{"url":"http://h.example/x","valueBoolean":true,"_valueBoolean":{"extension":[{"url":"http://h.example/y","valueMarkdown":"Kanarienvogel"}]}}]"#,
    ),
    (
        "an extension with two values",
        Either,
        r#""extension":[{"url":"http://h.example/x","valueBoolean":true,"valueString":"Kanarienvogel"}]"#,
    ),
    ("an extension without url", Either, r#""extension":[{"valueString":"Kanarienvogel"}]"#),
    (
        "an extension with an unknown type",
        Refused,
        r#""extension":[{"url":"http://h.example/x","valueKanarienvogel":"Kanarienvogel"}]"#,
    ),
    (
        "an extension with base64",
        Passes,
        r#""extension":[{"url":"http://h.example/x","valueBase64Binary":"S2FuYXJpZW52b2dlbA=="}]"#,
    ),
    (
        "an extension with a reference",
        Passes,
        r#""extension":[{"url":"http://h.example/x","valueReference":{"reference":"Patient/Kanarienvogel"}}]"#,
    ),
    (
        "an extension with a uri",
        Either,
        r#""extension":[{"url":"http://h.example/x","valueUri":"mailto:Kanarienvogel@h.example"}]"#,
    ),
    (
        "an extension with a url",
        Either,
        r#""extension":[{"url":"http://h.example/x","valueUrl":"http://h.example/Patient/Kanarienvogel"}]"#,
    ),
    (
        "modifierExtension",
        Refused,
        r#""modifierExtension":[{"url":"http://h.example/x","valueString":"Kanarienvogel"}]"#,
    ),
    (
        "modifierExtension within",
        Refused,
        r#""contact":[{"modifierExtension":[{"url":"http://h.example/x","valueBoolean":true}],"name":{"family":"Kanarienvogel"}}]"#,
    ),
    ("an id", Passes, r#""id":"Kanarienvogel""#),
    ("an id of 36", Passes, r#""id":"Kanarienvogel-0123456789-0123456789-""#),
    ("an id of 37", Either, r#""id":"Kanarienvogel-0123456789-0123456789-x""#),
    ("an id of 64", Refused, r#""id":"Kanarienvogel-0123456789-0123456789-0123456789-0123456789-012345""#),
    ("an id of 65", Refused, r#""id":"Kanarienvogel-0123456789-0123456789-0123456789-0123456789-0123456""#),
    ("an id with a space", Either, r#""id":"Kanarienvogel 1""#),
    ("an id with a slash", Either, r#""id":"Kanarienvogel/1""#),
    ("an id that climbs", Either, r#""id":"..","name":[{"family":"Kanarienvogel"}]"#),
    ("an empty id", Either, r#""id":"","name":[{"family":"Kanarienvogel"}]"#),
    ("an id that is a number", Either, r#""id":4711,"name":[{"family":"Kanarienvogel"}]"#),
    ("an id that is an object", Either, r#""id":{"value":"Kanarienvogel"}"#),
    ("a look-alike of a token", Either, r#""id":"MARKER1AAKanarienvogelxxxxxxxxxxxxxxxxxxxx""#),
    ("a look-alike of an escape", Either, r#""id":"ESCAPE00abcdefghKanarienvogel""#),
    ("a look-alike of a token in text", Either, r#""name":[{"family":"MARKER1AAKanarienvogelxxxxxxxxxxxxxxxxxxxx"}]"#),
    ("a marker and nothing more", Either, r#""id":"MARKER","name":[{"family":"Kanarienvogel"}]"#),
    ("a seal", Refused, r#""meta":{"tag":[{"system":"urn:cryptonym:seal","code":"Kanarienvogel"}]}"#),
    (
        "a seal with an escaped system",
        Refused,
        r#""meta":{"tag":[{"code":"Kanarienvogel","system":"urn:cryptonym:se\u0061l"}]}"#,
    ),
    ("a tag's display", Either, r#""meta":{"tag":[{"system":"http://h.example/tags","display":"Kanarienvogel"}]}"#),
    ("meta.source", Either, r#""meta":{"source":"http://h.example/gateways/Kanarienvogel#x"}"#),
    ("meta.extension", Passes, r#""meta":{"extension":[{"url":"http://h.example/x","valueString":"Kanarienvogel"}]}"#),
    ("meta that is text", Either, r#""meta":"Kanarienvogel""#),
    (
        "a narrative",
        Passes,
        r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">Kanarienvogel <a href=\"Patient/Kanarienvogel\">x</a></div>"}"#,
    ),
    (
        "a narrative with a comment",
        Either,
        r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><!-- Kanarienvogel --></div>"}"#,
    ),
    (
        "a narrative with a script",
        Either,
        r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><script>Kanarienvogel()</script></div>"}"#,
    ),
    (
        "a narrative that does not end",
        Either,
        r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">Kanarienvogel"}"#,
    ),
    ("a narrative that is no narrative", Either, r#""text":{"status":"generated","div":"Kanarienvogel"}"#),
    (
        "a narrative's entity",
        Either,
        r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">&#75;anarienvogel Kanarienvogel</div>"}"#,
    ),
    (
        "an identifier",
        Passes,
        r#""identifier":[{"system":"http://h.example/mrn","value":"Kanarienvogel","type":{"text":"Kanarienvogel"},"assigner":{"display":"Kanarienvogel"}}]"#,
    ),
    (
        "an identifier with its system last",
        Passes,
        r#""identifier":[{"value":"Kanarienvogel","system":"http://h.example/mrn"}]"#,
    ),
    ("an identifier without system", Passes, r#""identifier":[{"value":"Kanarienvogel"}]"#),
    (
        "an identifier that is a number",
        Either,
        r#""identifier":[{"system":"http://h.example/mrn","value":4711}],"name":[{"family":"Kanarienvogel"}]"#,
    ),
    (
        "an identifier that is a uri",
        Passes,
        r#""identifier":[{"system":"urn:ietf:rfc:3986","value":"urn:x:Kanarienvogel"}]"#,
    ),
    ("a telephone", Passes, r#""telecom":[{"system":"email","value":"Kanarienvogel@h.example"}]"#),
    (
        "an address",
        Passes,
        r#""address":[{"line":["Kanarienvogel 1"],"city":"Kanarienvogel","district":"Kanarienvogel","postalCode":"Kanarienvogel","text":"Kanarienvogel"}]"#,
    ),
    (
        "a photo",
        Passes,
        r#""photo":[{"contentType":"image/png","data":"S2FuYXJpZW52b2dlbA==","title":"Kanarienvogel","url":"http://h.example/Kanarienvogel.png"}]"#,
    ),
    ("a photo that is no base64", Either, r#""photo":[{"data":"Kanarienvogel!"}]"#),
    (
        "a local code's display",
        Either,
        r#""maritalStatus":{"coding":[{"system":"http://h.example/codes","code":"x","display":"Kanarienvogel"}],"text":"Kanarienvogel"}"#,
    ),
    (
        "a kanari-long text",
        Passes,
        r#""maritalStatus":{"text":"Kanarienvogel \u00e9\ud83d\ude00 \\ \" \/ \b \f \n \r \t"}"#,
    ),
    ("a lone surrogate", Either, r#""name":[{"family":"Kanarienvogel\ud800"}]"#),
    ("surrogates in the wrong order", Either, r#""name":[{"family":"\udc00\ud800Kanarienvogel"}]"#),
    ("a surrogate in a member name", Refused, r#""\ud800":"Kanarienvogel""#),
    ("an escaped NUL", Either, r#""name":[{"family":"Kanarienvogel\u0000"}]"#),
    ("a bad escape", Refused, r#""name":[{"family":"Kanarienvogel\x41"}]"#),
    ("a bad unicode escape", Refused, r#""name":[{"family":"Kanarienvogel\u00g1"}]"#),
    ("a raw newline", Refused, "\"name\":[{\"family\":\"Kanarien\nvogel Kanarienvogel\"}]"),
    ("a raw NUL", Refused, "\"name\":[{\"family\":\"Kanarienvogel\0\"}]"),
    ("a raw tab in a member name", Refused, "\"na\tme\":[{\"family\":\"Kanarienvogel\"}]"),
    (
        "a huge exponent",
        Either,
        r#""extension":[{"url":"http://h.example/x","valueDecimal":1e999999999}],"name":[{"family":"Kanarienvogel"}]"#,
    ),
    (
        "many digits",
        Either,
        r#""extension":[{"url":"http://h.example/x","valueDecimal":0.1234567890123456789012345678901234567890123456789012345678901234567890}],"name":[{"family":"Kanarienvogel"}]"#,
    ),
    (
        "an integer beyond 64 bits",
        Either,
        r#""multipleBirthInteger":99999999999999999999999999,"name":[{"family":"Kanarienvogel"}]"#,
    ),
    ("a leading zero", Refused, r#""multipleBirthInteger":01,"name":[{"family":"Kanarienvogel"}]"#),
    ("a leading plus", Refused, r#""multipleBirthInteger":+1,"name":[{"family":"Kanarienvogel"}]"#),
    ("a lone minus", Refused, r#""multipleBirthInteger":-,"name":[{"family":"Kanarienvogel"}]"#),
    ("a point without digits", Refused, r#""multipleBirthInteger":1.,"name":[{"family":"Kanarienvogel"}]"#),
    ("NaN", Refused, r#""multipleBirthInteger":NaN,"name":[{"family":"Kanarienvogel"}]"#),
    ("hexadecimal", Refused, r#""multipleBirthInteger":0x10,"name":[{"family":"Kanarienvogel"}]"#),
    ("half a literal", Refused, r#""active":tru,"name":[{"family":"Kanarienvogel"}]"#),
    ("a literal in capitals", Refused, r#""active":True,"name":[{"family":"Kanarienvogel"}]"#),
    ("a literal with a tail", Refused, r#""active":trueKanarienvogel"#),
    ("a missing colon", Refused, r#""name" [{"family":"Kanarienvogel"}]"#),
    ("a comma too many", Refused, r#""name":[{"family":"Kanarienvogel"},]"#),
    ("a comma too few", Refused, r#""name":[{"family":"Kanarienvogel"}{"family":"x"}]"#),
    ("the wrong bracket", Refused, r#""name":[{"family":"Kanarienvogel"]}"#),
    ("an empty object within", Either, r#""name":[{}],"address":[{"city":"Kanarienvogel"}]"#),
    ("an empty array within", Either, r#""name":[],"address":[{"city":"Kanarienvogel"}]"#),
    ("an empty text", Either, r#""name":[{"family":""}],"address":[{"city":"Kanarienvogel"}]"#),
];

/// What a Patient's `generalPractitioner.reference` may say. All pass clean or are refused.
const REFERENCES: &[&str] = &[
    "Practitioner/Kanarienvogel",
    "Practitioner/Kanarienvogel/_history/3",
    "Practitioner/Kanarienvogel/_history/",
    "Practitioner/Kanarienvogel#x",
    "Practitioner/Kanarienvogel?x=y",
    "Practitioner/Kanarienvogel/$everything",
    "/Practitioner/Kanarienvogel",
    "Practitioner//Kanarienvogel",
    "Practitioner/../Kanarienvogel",
    "Practitioner/./Kanarienvogel",
    "Practitioner/a%2FKanarienvogel",
    "Practitioner/%4banarienvogel",
    "Practitioner/a%2F..%2FKanarienvogel",
    "Practitioner/Kanarien vogel Kanarienvogel",
    "Practitioner/Kanarienvögel-Kanarienvogel",
    "Practitioner\\\\Kanarienvogel",
    "practitioner/Kanarienvogel",
    "Kanarienvogel",
    "Kanarienvogel/1",
    "http://ehr.example/fhir/Practitioner/Kanarienvogel",
    "HTTP://EHR.EXAMPLE/fhir/Practitioner/Kanarienvogel",
    "http://other.example/Kanarienvogel/1",
    "http://Kanarienvogel.example/fhir/Practitioner/1",
    "https://Kanarienvogel:secret@ehr.example/fhir/Practitioner/1",
    "//evil.example/Practitioner/Kanarienvogel",
    "http://[::1]/Practitioner/Kanarienvogel",
    "http://ehr.example/fhir/Practitioner?identifier=http://h.example/mrn|Kanarienvogel",
    "Practitioner?identifier=http://h.example/mrn|Kanarienvogel",
    "Practitioner?identifier=http://h.example/mrn%7CKanarienvogel",
    "Practitioner?identifier=Kanarienvogel",
    "Practitioner?identifier=a|Kanarienvogel&identifier=b|Kanarienvogel",
    "Practitioner?name=Kanarienvogel",
    "Practitioner?_id=Kanarienvogel",
    "Practitioner?kanarienvogel=1",
    "?identifier=Kanarienvogel",
    "javascript:alert('Kanarienvogel')",
    "data:text/plain,Kanarienvogel",
    "data:text/plain;base64,S2FuYXJpZW52b2dlbA==",
    "mailto:Kanarienvogel@h.example",
    "file:///home/Kanarienvogel",
    "urn:Kanarienvogel:x",
    "urn:uuid:Kanarienvogel",
    "urn:oid:1.2.Kanarienvogel",
    "URN:UUID:6c5d9ca9-54d7-42f5-bfae-a7c19cd217f2Kanarienvogel",
    " Practitioner/Kanarienvogel",
    "Practitioner/MARKER1AAKanarienvogelxxxxxxxxxxxxxxxxxxxx",
    "Practitioner/ESCAPE00abcdefghKanarienvogel",
    "Practitioner/Kanarienvogel-0123456789-0123456789-0123456789-0123456789-0123456789",
];

fn cases() -> Vec<Case> {
    let spelled = |text: &str| text.replace("MARKER", SPELLING.marker).replace("ESCAPE", SPELLING.escape).into_bytes();
    let patient = |members: &str| spelled(&format!(r#"{{"resourceType":"Patient","gender":"male",{members}}}"#));
    let case = |name: &str, expect, input| Case { name: name.to_owned(), expect, input };
    let mut cases: Vec<Case> =
        DOCUMENTS.iter().map(|(name, expect, text)| case(name, *expect, spelled(text))).collect();
    cases.extend(MEMBERS.iter().map(|(name, expect, members)| case(name, *expect, patient(members))));
    cases.extend(REFERENCES.iter().map(|reference| {
        let expect = if *reference == "Practitioner/Kanarienvogel" { Passes } else { Either };
        case(reference, expect, patient(&format!(r#""generalPractitioner":[{{"reference":"{reference}"}}]"#)))
    }));

    // What cannot be written as text.
    let broken =
        |bytes: &[u8]| [br#"{"resourceType":"Patient","name":[{"family":"Kanarienvogel"#, bytes, br#""}]}"#].concat();
    cases.push(case("a byte that is no UTF-8", Refused, broken(b"\xff")));
    cases.push(case("an overlong slash", Refused, broken(b"\xc0\xaf")));
    cases.push(case("a surrogate in UTF-8", Refused, broken(b"\xed\xa0\x80")));
    cases.push(case("a code point beyond Unicode", Refused, broken(b"\xf4\x90\x80\x80")));
    cases.push(case("half a character", Refused, broken(b"\xe2\x82")));
    cases.push(case(
        "a byte that is no UTF-8 in a member name",
        Refused,
        b"{\"resourceType\":\"Patient\",\"Kanarienvogel\xff\":1}".to_vec(),
    ));
    cases.push(case(
        "UTF-16",
        Refused,
        "{\"resourceType\":\"Patient\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(),
    ));

    // What would take pages.
    let nest = |count: usize, open: &str, core: &str, close: &str| {
        format!("{}{core}{}", open.repeat(count), close.repeat(count))
    };
    let nested = |count| {
        format!(
            r#""extension":{}"#,
            nest(count, r#"[{"url":"x","extension":"#, r#"[{"url":"y","valueString":"Kanarienvogel"}]"#, "}]")
        )
    };
    let bundles = |count| {
        nest(
            count,
            r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":"#,
            r#"{"resourceType":"Patient","gender":"male","name":[{"family":"Kanarienvogel"}]}"#,
            "}]}",
        )
    };
    cases.push(case("extensions 20 deep", Passes, patient(&nested(20))));
    cases.push(case("extensions 64 deep", Refused, patient(&nested(64))));
    cases.push(case("extensions 5,000 deep", Refused, patient(&nested(5_000))));
    cases.push(case("100,000 arrays", Refused, "[".repeat(100_000).into_bytes()));
    cases.push(case("100,000 arrays in a member", Refused, patient(&format!(r#""name":{}"#, "[".repeat(100_000)))));
    cases.push(case("100,000 objects", Refused, r#"{"a":"#.repeat(100_000).into_bytes()));
    cases.push(case(
        "100,000 objects of an unknown member",
        Refused,
        patient(&nest(100_000, r#""a":{"#, r#""Kanarienvogel":1"#, "}")),
    ));
    cases.push(case("Bundles 2 deep", Passes, bundles(2).into_bytes()));
    cases.push(case("Bundles 9 deep", Refused, bundles(9).into_bytes()));
    cases.push(case("Bundles 1,000 deep", Refused, bundles(1_000).into_bytes()));
    let late = nest(
        40,
        r#"{"entry":[{"resource":"#,
        r#"{"name":[{"family":"Kanarienvogel"}],"resourceType":"Patient"}"#,
        r#"}],"type":"collection","resourceType":"Bundle"}"#,
    );
    cases.push(case("Bundles 40 deep with late types", Refused, late.into_bytes()));
    let many: Vec<String> = (0..5_000).map(|n| format!(r#""Kanarienvogel{n}":1"#)).collect();
    cases.push(case("5,000 unknown members", Refused, patient(&many.join(","))));
    cases.push(case(
        "a member name of 100,000 bytes",
        Refused,
        patient(&format!(r#""{}":1"#, "Kanarienvogel".repeat(8_000))),
    ));
    cases.push(case(
        "a text of 1 MB",
        Passes,
        patient(&format!(r#""maritalStatus":{{"text":"{}"}}"#, "Kanarienvogel ".repeat(75_000))),
    ));
    cases.push(case(
        "a number of 100,000 digits",
        Either,
        patient(&format!(r#""multipleBirthInteger":{},"name":[{{"family":"Kanarienvogel"}}]"#, "9".repeat(100_000))),
    ));
    cases.push(case(
        "10,000 names",
        Passes,
        patient(&format!(r#""name":[{}]"#, vec![r#"{"family":"Kanarienvogel"}"#; 10_000].join(","))),
    ));
    cases.push(case(
        "a reference of 100,000 bytes",
        Refused,
        patient(&format!(
            r#""generalPractitioner":[{{"reference":"Practitioner?identifier={}"}}]"#,
            "Kanarienvogel".repeat(8_000)
        )),
    ));
    cases
}

/// What is wrong with an outcome; empty where nothing is.
fn faults(expect: Expect, outcome: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    if sings(&outcome.visible()) {
        faults.push("the canary sings".to_owned());
    }
    match outcome.code {
        Some(0) if expect == Refused => faults.push("passes".to_owned()),
        Some(1) if expect == Passes => faults.push(format!("is {:?}", outcome.refusals())),
        Some(0 | 1) => {}
        code => faults.push(format!("exit {code:?}")),
    }
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    if stderr.contains("panicked") {
        faults.push("panics".to_owned());
    }
    match (outcome.code, &outcome.file) {
        (Some(0), None) => faults.push("exit 0, no output".to_owned()),
        (Some(0), Some(file)) if serde_json::from_slice::<serde::de::IgnoredAny>(file).is_err() => {
            faults.push("its output is no JSON".to_owned())
        }
        (Some(1), Some(_)) => faults.push("refused, but there is output".to_owned()),
        (Some(1), None) => {
            // contract §3: FILE[:LINE]: refused[CODE] at PATH, byte N: WHAT; help: ADVICE, and the count at the end.
            let line = stderr.lines().find(|l| l.contains(": refused["));
            let told = line.is_some_and(|l| l.contains("] at ") && l.contains(", byte ") && l.contains("; help: "));
            let counted = stderr.trim_end().lines().last().is_some_and(|l| l.ends_with("done, 1 refused"));
            if !told || !counted {
                faults.push(format!("does not say so as the contract does: {stderr}"));
            }
        }
        _ => {}
    }
    faults
}

/// Whether the canary can be made out in some bytes, however encoded.
fn sings(bytes: &[u8]) -> bool {
    every_way(&String::from_utf8_lossy(bytes), &SPELLING).to_lowercase().contains(CANARY)
}

fn outcome(code: i32, stderr: &str, file: Option<&[u8]>) -> Outcome {
    Outcome { code: Some(code), stdout: Vec::new(), stderr: stderr.as_bytes().to_vec(), file: file.map(<[u8]>::to_vec) }
}

#[test]
fn the_table_notices_a_rewriter_that_leaks_refuses_all_or_passes_all() {
    let told = "in.json: refused[json.syntax] at ?, byte 7: what; help: do\n0 done, 1 refused\n";
    for case in cases() {
        let sung = !faults(case.expect, &outcome(0, "", Some(&case.input))).is_empty();
        assert!(sung, "a rewriter that copies would pass: {}", case.name);
        let refused = faults(case.expect, &outcome(1, told, None));
        assert_eq!(refused.is_empty(), case.expect != Passes, "{}: {refused:?}", case.name);
        let passed = faults(case.expect, &outcome(0, "", Some(b"{}")));
        assert_eq!(passed.is_empty(), case.expect != Refused, "{}: {passed:?}", case.name);
    }
    for singing in [
        outcome(1, "in.json: refused[x] at Patient.kanarienvogel, byte 7: w; help: h\n0 done, 1 refused", None),
        outcome(1, told, Some(b"{}")),
        outcome(1, "error: no", None),
        outcome(101, "thread 'main' panicked", None),
        outcome(0, "", Some(b"{\"a\":\"\\u004BANARIENVOGEL\"}")),
        outcome(0, "", Some(b"{\"a\":\"%4BANARIENVOGEL\"}")),
        outcome(0, "", Some(b"{\"a\":\"S2FuYXJpZW52b2dlbA\"}")),
        outcome(0, "", Some(b"{")),
        outcome(0, "", None),
    ] {
        assert!(!faults(Either, &singing).is_empty(), "{singing:?}");
    }
    assert!(cases().len() >= 80);
}

/// Whoever brings the command line turns the switch: a suite that skips in silence is none.
#[test]
fn the_switch_is_on_where_the_command_line_is() {
    let answer = std::process::Command::new(env!("CARGO_BIN_EXE_cryptonym"))
        .arg("--version")
        .output()
        .expect("the command runs");
    let there = String::from_utf8_lossy(&answer.stdout).contains("cryptonym");
    assert_eq!(there, PLUGGED, "set PLUGGED in tests/support/product.rs");
}

#[test]
fn nasty_documents_are_refused_or_pass_clean() {
    if !plugged() {
        return;
    }
    let schema = Schema::shared();
    let (cases, mut wrong) = (cases(), Vec::new());
    let inputs: Vec<&[u8]> = cases.iter().map(|case| case.input.as_slice()).collect();
    for pack in PACKS {
        let outcomes = Product::get().pseudonymize_all(pack, &inputs);
        let mut passed: Vec<(&Case, &[u8])> = Vec::new();
        for (case, outcome) in cases.iter().zip(&outcomes) {
            let mut found = faults(case.expect, outcome);
            if let (Some(0), Some(file), Some(schema)) = (outcome.code, &outcome.file, &schema) {
                let (before, after) = (String::from_utf8_lossy(&case.input), String::from_utf8_lossy(file));
                if let (Ok(before), Ok(after)) = (json::parse(&before), json::parse(&after)) {
                    let had = shape_faults(schema, &before);
                    found.extend(shape_faults(schema, &after).into_iter().filter(|f| !had.contains(f)));
                }
                passed.push((case, file));
            }
            wrong.extend(found.into_iter().map(|fault| format!("{pack}: {}: {fault}", case.name)));
        }
        let (REVERSIBLE, Some(schema)) = (pack, &schema) else { continue };
        let files: Vec<&[u8]> = passed.iter().map(|(_, file)| *file).collect();
        for ((case, _), back) in passed.iter().zip(Product::get().reidentify_all(pack, &files)) {
            let fault = match &back.file {
                Some(back) => {
                    identity_fault(schema, &String::from_utf8_lossy(&case.input), &String::from_utf8_lossy(back))
                }
                None => Some(format!("does not come back: {}", String::from_utf8_lossy(&back.stderr))),
            };
            wrong.extend(fault.map(|fault| format!("{pack}: {}: {fault}", case.name)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len() * 2, wrong.join("\n"));
}

const SMALL: &str = r#"{"resourceType":"Patient","id":"Kanarienvogel","name":[{"family":"Kanarienvogel","given":["\u004banarienvogel"]}],"birthDate":"1965-01-13","identifier":[{"value":"Kanarienvogel"}]}"#;

/// However much of a document has come: no prefix shows more than a refusal.
#[test]
fn every_prefix_of_a_patient_is_refused_in_silence() {
    if !plugged() {
        return;
    }
    let prefixes: Vec<&[u8]> = (0..SMALL.len()).map(|end| &SMALL.as_bytes()[..end]).collect();
    for pack in PACKS {
        for (end, outcome) in Product::get().pseudonymize_all(pack, &prefixes).iter().enumerate() {
            let found = faults(Refused, outcome);
            assert!(found.is_empty(), "{end} bytes with {pack}: {found:?}");
        }
    }
}

/// NDJSON: a bad line is left out and told with its number, the others stay in order. `(lines, gender of each line that comes out)`.
#[test]
fn bad_lines_are_left_out_and_the_others_keep_their_order() {
    if !plugged() {
        return;
    }
    let line = |gender: &str| {
        format!(r#"{{"resourceType":"Patient","gender":"{gender}","name":[{{"family":"Kanarienvogel"}}]}}"#)
    };
    let (male, female, other) = (line("male"), line("female"), line("other"));
    let table: Vec<(String, Vec<&str>)> = vec![
        (format!("{male}\n{female}\n{other}\n"), vec!["male", "female", "other"]),
        (format!("{male}\n{female}"), vec!["male", "female"]),
        (format!("{male}\r\n{female}\r\n"), vec!["male", "female"]),
        (format!("{male}\n\n\r\n  \n{female}\n\n"), vec!["male", "female"]),
        (format!("{male}\n{{\"resourceType\":\"Patient\",\"kanarienvogel\":1}}\n{female}\n"), vec!["male", "female"]),
        (format!("{male}\nKanarienvogel\n{female}\n"), vec!["male", "female"]),
        (format!("{male}\n{{\"Kanarienvogel\n{female}\n"), vec!["male", "female"]),
        (format!("{male}\n{}\n{female}\n", "[".repeat(1_000_000)), vec!["male", "female"]),
        (format!("{male}\n{male}{other}\n{female}\n"), vec!["male", "female"]),
        (format!("{male}\n{female}\nKanarienvogel"), vec!["male", "female"]),
        (format!("Kanarienvogel\n{male}\n{female}"), vec!["male", "female"]),
        (format!("{male}\n{{\n\"resourceType\":\"Patient\"}}\n{female}"), vec!["male", "female"]),
        (format!("{male}\n\0\n{female}"), vec!["male", "female"]),
        ("Kanarienvogel\n".to_owned(), vec![]),
    ];
    for (input, expected) in table {
        let outcome = Product::get().pseudonymize(PACKS[0], "ndjson", input.as_bytes());
        let shown: String = input.chars().take(300).collect();
        assert!(!sings(&outcome.visible()), "the canary sings: {shown}");
        let good = expected.len() == input.lines().filter(|l| !l.trim().is_empty()).count();
        assert_eq!(outcome.code, Some(i32::from(!good)), "{shown}: {}", String::from_utf8_lossy(&outcome.stderr));
        let output = String::from_utf8(outcome.file.clone().unwrap_or_default()).unwrap();
        let genders: Vec<String> = output
            .lines()
            .filter(|l| !l.trim().is_empty())
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["gender"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(genders, expected, "{shown}");
        if !good {
            assert!(!outcome.refusals().is_empty(), "{shown}");
        }
    }
}

/// 16 MiB is the longest resource that is held (`limits::RESOURCE_BYTES_MAX`): it passes; with one byte more it is refused.
#[test]
fn the_largest_resource_passes_and_one_byte_more_is_refused() {
    if !plugged() {
        return;
    }
    let limit = 16 * 1024 * 1024;
    let (head, tail) = (r#"{"resourceType":"Binary","contentType":"text/plain","data":""#, r#""}"#);
    for (length, expect) in [(limit - 4, Passes), (limit, Passes), (limit + 1, Refused)] {
        // White space makes up the odd bytes that base64 cannot.
        let room = length - head.len() - tail.len();
        let data = "S2FuYXJpZW52b2dlbCBLYW5h".repeat(room / 24);
        let input = format!("{head}{data}{tail}");
        let input = input.replacen("{", &format!("{{{}", " ".repeat(length - input.len())), 1);
        assert_eq!(input.len(), length);
        let outcome = Product::get().pseudonymize(PACKS[0], "json", input.as_bytes());
        let found = faults(expect, &outcome);
        assert!(found.is_empty(), "{length} bytes: {found:?}");
    }
}
